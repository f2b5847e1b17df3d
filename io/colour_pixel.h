/* The colour changes of colour.h on one value or pixel, shared by the host and CUDA. */
#ifndef CONR_IO_COLOUR_PIXEL_H
#define CONR_IO_COLOUR_PIXEL_H

#include "io/inline.h"

#include <stdint.h>

IO_INLINE uint8_t colour_luma(const uint8_t *pixel) {
  return (uint8_t)((pixel[0] * 19595 + pixel[1] * 38470 + pixel[2] * 7471 + 0x8000) >> 16);
}

/* From `dull` towards `value`, and beyond. */
IO_INLINE uint8_t colour_blend(int dull, int value, float factor) {
  float mixed = (float)dull + factor * (float)(value - dull);
  mixed = mixed < 0 ? 0 : mixed > 255 ? 255 : mixed;
  return (uint8_t)(int)mixed;
}

/* Of the luma of `count` pixels: what contrast blends from. */
IO_INLINE int colour_mean(uint64_t luma_sum, uint64_t count) {
  return (int)((double)luma_sum / (double)count + 0.5);
}

IO_INLINE void colour_saturate(uint8_t *pixel, float factor) {
  int grey = colour_luma(pixel);
  pixel[0] = colour_blend(grey, pixel[0], factor);
  pixel[1] = colour_blend(grey, pixel[1], factor);
  pixel[2] = colour_blend(grey, pixel[2], factor);
}

/* Hue in 0 to 255.  The position on the hexagon, 0 to 6 from red over green and blue, is part / spread; 255 / 6 of it
 * is truncated.  All numbers before the division are whole and small, so that float is exact. */
IO_INLINE int colour_hue_of(int red, int green, int blue, int most, int spread) {
  int part = red == most ? green - blue : green == most ? 2 * spread + blue - red : 4 * spread + red - green;
  part += part < 0 ? 6 * spread : 0;
  return (int)((float)(255 * part) / (float)(6 * (spread > 0 ? spread : 1)));
}

/* One channel at a position of the hexagon: `corner` is 5 for red, 3 for green, 1 for blue. */
IO_INLINE uint8_t colour_channel_of(float position, float strength, float most, float corner) {
  float k = position + corner;
  k -= k >= 6 ? 6 : 0;
  float share = k < 4 - k ? k : 4 - k;
  share = share < 0 ? 0 : share > 1 ? 1 : share;
  return (uint8_t)(int)(most * (1 - strength * share) + 0.5f);
}

/* By so many 256ths of the circle. */
IO_INLINE void colour_turn(uint8_t *pixel, int turn) {
  int red = pixel[0], green = pixel[1], blue = pixel[2];
  int most = red > green ? red : green, least = red < green ? red : green;
  most = blue > most ? blue : most;
  least = blue < least ? blue : least;
  int spread = most - least;
  int hue = (colour_hue_of(red, green, blue, most, spread) + turn) & 255;
  int saturation = (int)((float)(255 * spread) / (float)(most > 0 ? most : 1));
  float position = (float)(6 * hue) / 255.0f, strength = (float)saturation / 255.0f;
  pixel[0] = colour_channel_of(position, strength, (float)most, 5);
  pixel[1] = colour_channel_of(position, strength, (float)most, 3);
  pixel[2] = colour_channel_of(position, strength, (float)most, 1);
}

/* What colour_turn takes for `turn` of the circle. */
IO_INLINE int colour_steps(double turn) {
  return (int)(turn * 255) & 255;
}

#endif
