//! What would be attached where, and why: facts for people, without touching the kernel.

use super::Source;
use crate::platform::btf::Btf;

/// A program of the kernel half and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The program's name.
    pub program: &'static str,
    /// What it is attached to.
    pub hook: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

/// Attached whatever the source.
const LIFECYCLE: [Probe; 3] = [
    Probe {
        program: "sched_process_fork",
        hook: "tp_btf sched:sched_process_fork",
        purpose: "follow children of traced processes",
    },
    Probe {
        program: "sched_process_exec",
        hook: "tp_btf sched:sched_process_exec",
        purpose: "notice new programs before their first request",
    },
    Probe {
        program: "sched_process_exit",
        hook: "tp_btf sched:sched_process_exit",
        purpose: "forget processes, so that a reused id is another one",
    },
];

/// The probes of a source on a kernel, those of every source included.
pub fn probes(source: Source, kernel: &Btf) -> Vec<Probe> {
    let mut probes = LIFECYCLE.to_vec();
    probes.push(Probe {
        program: match source {
            Source::SocketTracepoints | Source::SocketFunctions => "inet_sock_set_state",
            Source::SyscallExit => "inet_sock_set_state_found",
        },
        hook: "tp_btf sock:inet_sock_set_state",
        purpose: "see listeners, shutdown and close of TCP sockets",
    });
    if source != Source::SyscallExit {
        probes.push(Probe {
            program: "tcp_destroy_sock",
            hook: "tp_btf tcp:tcp_destroy_sock",
            purpose: "forget TCP sockets that nobody uses any more",
        });
    }
    probes.extend_from_slice(source.probes());
    if source == Source::SocketFunctions {
        let has = |probe: &&Probe| kernel.parameters(probe.program).is_some();
        probes.extend(PAGE_FUNCTIONS.iter().filter(has));
    }
    probes
}

/// What is attached besides if functions, exceptions or static tracepoints are asked for.
pub fn for_functions(any: bool, exceptions: bool) -> impl Iterator<Item = Probe> {
    let function = Probe {
        program: "function_hit",
        hook: "uprobes, in one link a file",
        purpose: "see calls of functions, exceptions and static tracepoints",
    };
    let signals = Probe {
        program: "signal_deliver",
        hook: "tp_btf signal:signal_deliver",
        purpose: "see signals that end a process with an error",
    };
    let wanted = [(any, function), (exceptions, signals)];
    wanted.into_iter().filter_map(|(is_wanted, probe)| is_wanted.then_some(probe))
}

/// Where the kernel still has them: sends like any other since 6.5.
const PAGE_FUNCTIONS: [Probe; 2] = [
    Probe { program: "tcp_sendpage", hook: "fexit tcp_sendpage", purpose: PAGES },
    Probe { program: "unix_stream_sendpage", hook: "fexit unix_stream_sendpage", purpose: PAGES },
];

const PAGES: &str = "see bytes sent by sendfile and splice";

impl Source {
    /// The probes that see socket operations.
    fn probes(self) -> &'static [Probe] {
        const OPERATIONS: &str = "see bytes sent and received on sockets";
        match self {
            Self::SocketTracepoints => &[
                Probe {
                    program: "sock_send_length",
                    hook: "tp_btf sock:sock_send_length",
                    purpose: OPERATIONS,
                },
                Probe {
                    program: "sock_recv_length",
                    hook: "tp_btf sock:sock_recv_length",
                    purpose: OPERATIONS,
                },
            ],
            Self::SocketFunctions => &[
                Probe { program: "tcp_sendmsg", hook: "fexit tcp_sendmsg", purpose: OPERATIONS },
                Probe { program: "tcp_recvmsg", hook: "fexit tcp_recvmsg", purpose: OPERATIONS },
                Probe {
                    program: "unix_stream_sendmsg",
                    hook: "fexit unix_stream_sendmsg",
                    purpose: OPERATIONS,
                },
                Probe {
                    program: "unix_stream_recvmsg",
                    hook: "fexit unix_stream_recvmsg",
                    purpose: OPERATIONS,
                },
            ],
            Self::SyscallExit => &[Probe {
                program: "sys_exit",
                hook: "tp_btf raw_syscalls:sys_exit",
                purpose: "see bytes sent and received on sockets, at the end of every syscall",
            }],
        }
    }

    /// What it costs, and which kernels have it.
    pub fn describe(self) -> &'static str {
        match self {
            Self::SocketTracepoints => {
                "tracepoints on socket operations; only socket traffic pays (Linux 6.3 and later)"
            }
            Self::SocketFunctions => {
                "fexit on the functions of TCP and Unix sockets; only their traffic pays (Linux \
                 5.19 and later, refused by some kernels; a call that is under way when the agent \
                 starts is not seen)"
            }
            Self::SyscallExit => {
                "one tracepoint at the end of every syscall; every syscall of the host pays a \
                 little (Linux 5.11 and later; does not see what io_uring does)"
            }
        }
    }

    /// Whether the kernel's types name its hooks. It may still refuse them.
    pub fn is_known_to(self, kernel: &Btf) -> bool {
        match self {
            Self::SocketTracepoints => kernel.tracepoint("sock_send_length").is_some(),
            Self::SocketFunctions => kernel.function("tcp_sendmsg").is_some(),
            Self::SyscallExit => kernel.tracepoint("sys_exit").is_some(),
        }
    }
}
