/* Checksums of bytes and files. */
#include "io/checksum.h"

#include "io_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

TestSuite(checksum, .init = io_files_begin, .fini = io_files_end);

Test(checksum, is_that_of_zlib_however_the_bytes_come) {
  struct checksum whole = checksum_begin(), parts = checksum_begin();
  checksum_add(&whole, "123456789", 9);
  checksum_add(&parts, "1234", 4);
  checksum_add(&parts, "56789", 5);
  /* The published check values: CRC-32 cbf43926, Adler-32 091e01de. */
  cr_assert(eq(u64, checksum_value(&whole), 0xcbf43926091e01de));
  cr_assert(eq(u64, checksum_value(&parts), checksum_value(&whole)));
}

static uint64_t sum_of(const char *path, int64_t *read) {
  struct file_sum sum;
  cr_assert(checksum_file(path, &sum) == STATUS_OK, "%s", status_message());
  *read = sum.read;
  return sum.sum;
}

FILE_TEST(checksum, every_byte_of_a_small_file_counts) {
  char content[5000];
  int64_t read;
  memset(content, 'a', sizeof content);
  io_write(io_file("f"), content, sizeof content);
  uint64_t before = sum_of(io_file("f"), &read);
  cr_assert(eq(i64, read, 5000));
  for (size_t at = 0; at < sizeof content; at += 499) {
    content[at] ^= 1;
    io_write(io_file("f"), content, sizeof content);
    cr_assert(ne(u64, sum_of(io_file("f"), &read), before), "byte %zu", at);
    content[at] ^= 1;
  }
  io_write(io_file("f"), content, sizeof content - 1);
  cr_assert(ne(u64, sum_of(io_file("f"), &read), before));
}

/* A file with holes: nothing of it takes room on the disk. */
FILE_TEST(checksum, a_large_file_is_read_at_its_ends_and_at_places_in_between) {
  enum { MIB = 1 << 20 };
  static const struct {
    int64_t at;
    bool counts;
  } places[] = {{0, true},
                {MIB - 1, true},
                {MIB + 10, true},
                {300 * (int64_t)MIB - 1, true},
                {299 * (int64_t)MIB, true},
                {299 * (int64_t)MIB - 100000, false},
                {3 * (int64_t)MIB, false}};
  int64_t read;
  int file = open(io_file("f"), O_RDWR | O_CREAT, 0600);
  cr_assert(file >= 0 && ftruncate(file, 300 * (off_t)MIB) == 0);
  uint64_t before = sum_of(io_file("f"), &read);
  cr_assert(eq(i64, read, 2 * CHECKSUM_ENDS + CHECKSUM_PLACES * CHECKSUM_PIECE));
  for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
    cr_assert(pwrite(file, "x", 1, (off_t)places[i].at) == 1);
    cr_expect(eq(int, sum_of(io_file("f"), &read) != before, places[i].counts), "byte %lld", (long long)places[i].at);
    cr_assert(pwrite(file, "", 1, (off_t)places[i].at) == 1);
  }
  cr_assert(ftruncate(file, 300 * (off_t)MIB + 1) == 0);
  cr_expect(ne(u64, sum_of(io_file("f"), &read), before), "another size");
  close(file);
}

FILE_TEST(checksum, what_is_no_file_is_refused) {
  struct file_sum sum;
  io_write_text(io_file("empty"), "");
  cr_assert(checksum_file(io_file("none"), &sum) == ERR_FILE);
  cr_assert(strstr(status_message(), "No such file or directory; check the path") != NULL, "%s", status_message());
  cr_assert(checksum_file(io_file(""), &sum) == ERR_FILE);
  cr_assert(checksum_file("/dev/null", &sum) == ERR_FILE);
  cr_assert(checksum_file(io_file("empty"), &sum) == ERR_FORMAT);
}
