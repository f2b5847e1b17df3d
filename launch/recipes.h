/* Recipes: the published settings of a benchmark and of each method on it, as files of options.
 *
 * launch/recipes/BENCHMARK.conf has a section [base], and one for each method; `--recipe BENCHMARK/a+b` reads [base],
 * [a] and [b], the later ones winning.  In a section stand options as in a config file, and two texts for people:
 * "about", what it is, and "source", where its numbers come from.
 *
 * The files are looked for in the folder that the environment variable CONR_RECIPES names, or beside the program
 * (shared_folder.h).  All functions are local. */
#ifndef CONR_LAUNCH_RECIPES_H
#define CONR_LAUNCH_RECIPES_H

#include "dist/status.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>

#define RECIPES_BASE "base"

/* "about" or "source". */
bool recipes_is_text(const char *name);

/* The file of "agedb-dir" or "agedb-dir/lds".  ERR_ARGUMENT lists the benchmarks. */
enum status recipes_find(const char *recipe, char path[PATH_MAX]);

/* Always ERR_ARGUMENT: names the methods that the file has. */
enum status recipes_unknown_method(const char *path, const char *method);

/* What `conr recipes` prints: all benchmarks, or (name not NULL) the sections of one with their options. */
enum status recipes_list(const char *name, FILE *out);

#endif
