/* The shipped table, imported by conr itself. */
#ifndef CONR_TESTS_ABALONE_H
#define CONR_TESTS_ABALONE_H

/* FOLDER/abalone.h5, made now: its path, kept until the next call. */
const char *abalone_table(const char *folder);

#endif
