/* A hot loop compiled for several vector widths and chosen at run time. */
#ifndef CONR_LOSS_VECTORISED_H
#define CONR_LOSS_VECTORISED_H

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTORISED
#endif

#endif
