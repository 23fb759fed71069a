/* Test nodes only. CRIU asks prlimit(2) about the processes that it dumps; for those of another user than its own the
 * kernel wants CAP_SYS_RESOURCE. Where the machine has none, answer from /proc/<pid>/limits, which root may read.
 * Preloaded into criu, which makes the call through syscall(2).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const names[] = { /* by number of the resource, as the kernel prints them */
	"Max cpu time", "Max file size", "Max data size", "Max stack size", "Max core file size",
	"Max resident set", "Max processes", "Max open files", "Max locked memory", "Max address space",
	"Max file locks", "Max pending signals", "Max msgqueue size", "Max nice priority",
	"Max realtime priority", "Max realtime timeout",
};

static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if (result < 0 && result > -4096) {
		errno = -result;
		return -1;
	}
	return result;
}

static rlim_t value(const char *word)
{
	return strcmp(word, "unlimited") ? strtoull(word, NULL, 10) : RLIM_INFINITY;
}

static int read_limit(pid_t pid, long resource, struct rlimit64 *limit)
{
	char path[64], line[256], soft[64], hard[64];
	int found = -1;
	FILE *file;

	if (resource < 0 || resource >= (long)(sizeof(names) / sizeof(*names)))
		return -1;
	snprintf(path, sizeof(path), "/proc/%d/limits", pid);
	file = fopen(path, "r");
	if (!file)
		return -1;
	while (found && fgets(line, sizeof(line), file)) {
		size_t length = strlen(names[resource]);

		if (strncmp(line, names[resource], length) || line[length] != ' ')
			continue;
		if (sscanf(line + 25, "%63s %63s", soft, hard) != 2) /* names fill 25 columns */
			break;
		limit->rlim_cur = value(soft);
		limit->rlim_max = value(hard);
		found = 0;
	}
	fclose(file);
	return found;
}

long syscall(long number, ...)
{
	long a, b, c, d, e, f, result;
	va_list rest;

	va_start(rest, number);
	a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
	d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
	va_end(rest);
	result = kernel(number, a, b, c, d, e, f);
	if (number != SYS_prlimit64 || result >= 0 || errno != EPERM || c || !d)
		return result;
	if (read_limit(a, b, (struct rlimit64 *)d) == 0)
		return 0;
	errno = EPERM;
	return -1;
}
