/* What made-up programs have in common whose calls end in odd ways: a log of which were entered, left, jumped
   out of and thrown through, on which stack. */
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <pthread.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))
enum { LOG_MAX = 65536, DEPTH_MAX = 24, FIBRES_MAX = 8 };

/* What belongs to one stack. */
struct lane {
	int tries, jumps, depth;
	/* So many of its jumps cannot be made: a handler is in between. */
	int floor;
	jmp_buf *buffers[64];
	ucontext_t context;
	bool over;
};

static thread_local unsigned entries, activations;
static thread_local int *entry_log;
static thread_local int left;
static thread_local lane lanes[FIBRES_MAX + 1];
static thread_local lane *here;
static thread_local int fibres;

void calls(void);

/* Other threads' variables are found anew after a switch, which stays on its thread. */
#define LOG(what, number) (entry_log[entries++ % LOG_MAX] = 8 * (int)(number) + (what))
#define ENTERED(number) int sum = n; const int me = (int)activations++; (void)me; \
	LOG(0, number); here->depth++
#define LEFT(number) (LOG(1, number), here->depth--)
#define LEAVES(number) (LOG(2, number), here->depth--)
#define LANDED() LOG(3, me)
#define MAY_CALL() (left > 0 && here->depth < DEPTH_MAX && left-- > 0)

#define TRY(call) do { \
	const int tries = here->tries, jumps = here->jumps, depth = here->depth; \
	if (MAY_CALL()) { \
		here->tries++; \
		try { call; } catch (int) { LANDED(); } \
	} \
	here->tries = tries; here->jumps = jumps; here->depth = depth; \
} while (0)

#define JUMPS(call) do { \
	jmp_buf buffer; \
	const int volatile tries = here->tries, jumps = here->jumps, depth = here->depth; \
	if (here->jumps < 64 && MAY_CALL()) { \
		here->buffers[here->jumps++] = &buffer; \
		/* An exception does not pass what jumps land in. */ \
		here->tries = 0; \
		if (setjmp(buffer) == 0) { call; } else { LANDED(); } \
	} \
	here->tries = tries; here->jumps = jumps; here->depth = depth; \
} while (0)

#define THROW() do { if (here->tries > 0) throw 7; } while (0)
#define JUMP() do { if (here->jumps > here->floor && here->tries == 0) longjmp(*here->buffers[here->jumps - 1], 1); } while (0)

static thread_local int (*in_handler)(int);
static void handler(int)
{
	/* Nothing that is thrown or jumped leaves it. */
	const int tries = here->tries, floor = here->floor;
	here->tries = 0;
	here->floor = here->jumps;
	int (*call)(int) = in_handler;
	in_handler = nullptr;
	call(1000);
	here->tries = tries;
	here->floor = floor;
}
#define SIGNAL(function) do { if (MAY_CALL()) { in_handler = function; raise(SIGUSR1); } } while (0)

#define BEGIN() do { left = 60; here->depth = here->tries = here->jumps = here->floor = 0; } while (0)

/* Goes to the next stack that is not over; the first is the thread's own. */
static KEEP void yield_to_next(void)
{
	lane *from = here;
	int at = (int)(here - lanes);
	do at = (at + 1) % (fibres + 1); while (lanes[at].over);
	if (&lanes[at] == from) return;
	here = &lanes[at];
	LOG(4, at);
	swapcontext(&from->context, &here->context);
}
#define YIELD() do { if (fibres > 0) yield_to_next(); } while (0)

static void fibre(void)
{
	left = 60;
	calls();
	here->over = true;
	yield_to_next();
	abort();
}

struct thread {
	pthread_t id;
	int tid, fibres;
	size_t apart;
	unsigned entries;
	int *log;
};

static void *run(void *of)
{
	struct thread *thread = (struct thread *)of;
	entry_log = (int *)calloc(LOG_MAX, sizeof(int));
	thread->tid = gettid();
	here = &lanes[0];
	fibres = thread->fibres;
	/* Each at the end of its room, beside the next one or far from it. */
	const size_t bytes = 1 << 17;
	char *room = (char *)mmap(NULL, fibres * thread->apart + 1, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	for (int at = 1; at <= fibres; at++) {
		getcontext(&lanes[at].context);
		lanes[at].context.uc_stack.ss_sp = room + at * thread->apart - bytes;
		lanes[at].context.uc_stack.ss_size = bytes;
		makecontext(&lanes[at].context, fibre, 0);
	}
	calls();
	/* The rest of the others. */
	for (;;) {
		bool over = true;
		for (int at = 1; at <= fibres; at++) over = over && lanes[at].over;
		if (over) break;
		left = 0;
		yield_to_next();
	}
	thread->entries = entries;
	thread->log = entry_log;
	return NULL;
}

static int runs(int count, int fibres, size_t apart, const char *path)
{
	struct thread threads[8];
	struct sigaction action = {};
	action.sa_handler = handler;
	action.sa_flags = SA_NODEFER;
	sigaction(SIGUSR1, &action, NULL);
	for (int n = 0; n < count; n++) {
		threads[n].fibres = fibres;
		threads[n].apart = apart;
		pthread_create(&threads[n].id, NULL, run, &threads[n]);
	}
	FILE *file = fopen(path, "w");
	for (int n = 0; n < count; n++) {
		pthread_join(threads[n].id, NULL);
		fprintf(file, "T %d\n", threads[n].tid);
		for (unsigned at = 0; at < threads[n].entries; at++) {
			int entry = threads[n].log[at];
			fprintf(file, "%c %d\n", "+-~!L"[entry & 7], entry >> 3);
		}
	}
	return fclose(file);
}
