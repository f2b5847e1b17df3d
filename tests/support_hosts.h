/* Scripts on several hosts that tests/cluster/hosts makes of this machine.
 *
 *     hosts_wanted();                                                     skips the test where it cannot
 *     char *output = hosts_run(3, "ranks check %s", data);                free() it
 *
 * A script runs on host1 and has, beside the environment of tests/cluster/hosts,
 *
 *     ranks ARGUMENTS...           conr on one rank a host; each rank tells "[exit N host]" at its end
 *     on HOST COMMAND...           on another host, in its name space of mounts too
 *     $CONR, $RANK_SETUP           the program; a line of shell that each rank runs first
 *
 * All functions assert. */
#ifndef CONR_TESTS_SUPPORT_HOSTS_H
#define CONR_TESTS_SUPPORT_HOSTS_H

void hosts_wanted(void);

/* The same of a Slurm on them (tests/cluster/slurm); CONR_TEST_SLURM=0 leaves such tests out. */
void slurm_wanted(void);

/* The script's output; it must end with status 0. */
char *hosts_run(int count, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
