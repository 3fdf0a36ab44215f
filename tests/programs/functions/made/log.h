/* What made-up programs have in common: a log of which functions were entered and left, by thread. */
#define _GNU_SOURCE 1
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#ifdef __cplusplus
#include <string>
#include <string_view>
#include <vector>
typedef bool truth;
#else
typedef _Bool truth;
#endif

#define KEEP __attribute__((noinline))
#define PER_THREAD static __thread
#define LOG_MAX 65536
#define DEPTH_MAX 10

PER_THREAD unsigned entries;
PER_THREAD int *entry_log;
PER_THREAD int left, depth;

/* No calls, so that functions may have none. */
#define ENTERED(number) (entry_log[entries++ % LOG_MAX] = 4 * (number), depth++)
#define LEFT(number) (entry_log[entries++ % LOG_MAX] = 4 * (number) + 1, depth--)
/* What is called next is the last. */
#define LEAVES(number) (entry_log[entries++ % LOG_MAX] = 4 * (number) + 2, depth--)
#define MAY_CALL() (left > 0 && depth < DEPTH_MAX && left-- > 0)
/* Reads from it, as whoever uses it does. */
#define USE(value) __asm__ volatile("testb $0, %0" : : "m"(value) : "cc")
#define USE_NUMBER(value) __asm__ volatile("" : : "r"(value))
#define TOUCH(address) __asm__ volatile("" : : "r"(address) : "memory")

typedef void (*code)(void);
void calls(void);

struct thread {
	pthread_t id;
	int tid;
	unsigned entries;
	int *log;
};

static void *run(void *of)
{
	struct thread *thread = (struct thread *)of;
	entry_log = (int *)calloc(LOG_MAX, sizeof(int));
	thread->tid = gettid();
	calls();
	thread->entries = entries;
	thread->log = entry_log;
	return NULL;
}

static int runs(int count, const char *path)
{
	struct thread threads[8];
	/* A probe does not wait for a page. */
	mlockall(MCL_CURRENT);
	for (int n = 0; n < count; n++)
		pthread_create(&threads[n].id, NULL, run, &threads[n]);
	FILE *file = fopen(path, "w");
	for (int n = 0; n < count; n++) {
		pthread_join(threads[n].id, NULL);
		fprintf(file, "T %d\n", threads[n].tid);
		for (unsigned at = 0; at < threads[n].entries; at++) {
			int entry = threads[n].log[at];
			fprintf(file, "%c %d\n", "+-~"[entry & 3], entry >> 2);
		}
	}
	return fclose(file);
}
