/* A shared folder that fails once, and a clock that jumps: preloaded into a run.
 *   FAULTY_CALL=write|fsync|rename  FAULTY_AT=N: the N-th such call on a file under FAULTY_FOLDER fails with EIO
 *   FAULTY_CLOCK=SECONDS: the wall clock jumps to and fro by so much every second call; the monotonic clock does not */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fails(const char* call, const char* path) {
    static atomic_int calls;
    const char* wanted = getenv("FAULTY_CALL");
    const char* folder = getenv("FAULTY_FOLDER");
    if (!wanted || !folder || strcmp(wanted, call) != 0 || strncmp(path, folder, strlen(folder)) != 0) return 0;
    return atomic_fetch_add(&calls, 1) + 1 == atoi(getenv("FAULTY_AT"));
}
static int fails_on(const char* call, int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return fails(call, path);
}
#define REAL(name) static __typeof__(name)* real; if (!real) real = (__typeof__(name)*)dlsym(RTLD_NEXT, #name)
#define FAIL_IF(condition) if (condition) { errno = EIO; return -1; }

ssize_t write(int file, const void* bytes, size_t count) {
    REAL(write);
    FAIL_IF(fails_on("write", file))
    return real(file, bytes, count);
}
ssize_t pwrite(int file, const void* bytes, size_t count, off_t at) {
    REAL(pwrite);
    FAIL_IF(fails_on("write", file))
    return real(file, bytes, count, at);
}
ssize_t pwrite64(int file, const void* bytes, size_t count, off64_t at) {
    REAL(pwrite64);
    FAIL_IF(fails_on("write", file))
    return real(file, bytes, count, at);
}
int fsync(int file) {
    REAL(fsync);
    FAIL_IF(fails_on("fsync", file))
    return real(file);
}
int rename(const char* from, const char* to) {
    REAL(rename);
    FAIL_IF(fails("rename", to))
    return real(from, to);
}
int clock_gettime(clockid_t clock, struct timespec* now) {
    REAL(clock_gettime);
    static atomic_int calls;
    const int code = real(clock, now);
    const char* jump = getenv("FAULTY_CLOCK");
    if (jump && clock == CLOCK_REALTIME) now->tv_sec += atomic_fetch_add(&calls, 1) % 2 ? atol(jump) : -atol(jump);
    return code;
}
