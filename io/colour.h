/* Colour changes on 8-bit RGB pixels, as the field's image library makes them (and its truncation, to the level).
 *
 *     colour_brightness(pixels, count, 1.2);      pixels [count, 3], in place
 *
 * A factor of 1 changes nothing, 0 gives black, the mean grey, or the picture in grey.  Grey is ITU-R 601-2's luma.
 * All functions are local and thread-safe. */
#ifndef CONR_IO_COLOUR_H
#define CONR_IO_COLOUR_H

#include <stddef.h>
#include <stdint.h>

void colour_brightness(uint8_t *pixels, size_t count, double factor);
void colour_contrast(uint8_t *pixels, size_t count, double factor);
void colour_saturation(uint8_t *pixels, size_t count, double factor);

/* Turn the hue by `turn` of the circle, -0.5 to 0.5.  Hue and saturation have 8 bits on the way: a turn of 0 does not
 * give quite the same picture. */
void colour_hue(uint8_t *pixels, size_t count, double turn);

void colour_grey(uint8_t *pixels, size_t count);

#endif
