/* Loaded before libc: whoever asks it for the time of day gets another one. WRONG_BY seconds are added; with JUMPS they
   are added in every other second and taken off in the rest. Other clocks are as they are. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static time_t wrong(time_t now) {
    const char *by = getenv("WRONG_BY");
    time_t off = by ? (time_t)atol(by) : 0;
    return now + (getenv("JUMPS") && now % 2 ? -off : off);
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    int result = (int)syscall(SYS_clock_gettime, clock, at);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) at->tv_sec = wrong(at->tv_sec);
    return result;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    int result = (int)syscall(SYS_gettimeofday, at, zone);
    if (result == 0 && at) at->tv_sec = wrong(at->tv_sec);
    return result;
}

time_t time(time_t *to) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
