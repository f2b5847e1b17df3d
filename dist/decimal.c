/* Shortest decimals. */
#include "dist/decimal.h"

#include <stdio.h>
#include <stdlib.h>

const char *decimal_text(double value, char text[DECIMAL_BYTES]) {
  for (int digits = 15; digits <= 17; digits++) {
    snprintf(text, DECIMAL_BYTES, "%.*g", digits, value);
    if (strtod(text, NULL) == value)
      break;
  }
  return text;
}
