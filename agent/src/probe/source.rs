//! The ways in which socket operations can be seen, and which programs each attaches where. Attaches
//! nothing.

/// How socket operations are seen, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// `tp_btf` `sock_send_length` and `sock_recv_length`: only socket traffic pays.
    SocketTracepoints,
    /// `fexit` on the functions of TCP and Unix sockets: only their traffic pays. Needs BPF
    /// trampolines (x86-64; arm64 since 6.4) and Linux 5.19.
    SocketFunctions,
    /// `tp_btf` `sys_exit` alone: every syscall of the host pays a little. Needs only BTF, and
    /// does not see what io_uring does.
    SyscallExit,
}

/// Where a program goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hook {
    /// A tracepoint.
    Tracepoint(&'static str),
    /// The end of a kernel function, which must have as many parameters for the program to find its
    /// arguments.
    FunctionExit {
        function: &'static str,
        parameters: u32,
        /// Whether it is left out where the kernel has no such function.
        optional: bool,
    },
    /// A walk over something that the kernel has, when user space asks for it.
    Iterator(&'static str),
}

/// A program and its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) program: &'static str,
    pub(super) hook: Hook,
}

impl Attachment {
    /// A program with the name of its tracepoint.
    const fn tracepoint(name: &'static str) -> Self {
        Self { program: name, hook: Hook::Tracepoint(name) }
    }

    /// A program with the name of its function.
    const fn function(function: &'static str, parameters: u32, optional: bool) -> Self {
        let hook = Hook::FunctionExit { function, parameters, optional };
        Self { program: function, hook }
    }
}

/// Attached whatever the source.
pub(super) const LIFECYCLE: [Attachment; 3] = [
    Attachment::tracepoint("sched_process_fork"),
    Attachment::tracepoint("sched_process_exec"),
    Attachment::tracepoint("sched_process_exit"),
];

/// Attached if it is asked for.
pub(super) const SIGNALS: Attachment = Attachment::tracepoint("signal_deliver");

/// Instead, with the stack, where the kernel can tell the registers.
pub(super) const SIGNALS_WITH_STACKS: Attachment =
    Attachment { program: "signal_deliver_stack", hook: Hook::Tracepoint("signal_deliver") };

/// Loaded when it is first asked for.
pub(super) const UNIX_SOCKETS: Attachment =
    Attachment { program: "unix_sockets", hook: Hook::Iterator("bpf_sk_storage_map") };

/// Instead, where sockets are found by their descriptors.
pub(super) const GONE_SOCKETS: Attachment =
    Attachment { program: "gone_sockets", hook: Hook::Iterator("bpf_map_elem") };

const STATE: &str = "inet_sock_set_state";
const DESTROY: &str = "tcp_destroy_sock";

const SOCKET_TRACEPOINTS: [Attachment; 4] = [
    Attachment::tracepoint(STATE),
    Attachment::tracepoint(DESTROY),
    Attachment::tracepoint("sock_send_length"),
    Attachment::tracepoint("sock_recv_length"),
];

const SOCKET_FUNCTIONS: [Attachment; 8] = [
    Attachment::tracepoint(STATE),
    Attachment::tracepoint(DESTROY),
    Attachment::function("tcp_sendmsg", 3, false),
    Attachment::function("tcp_recvmsg", 5, false),
    Attachment::function("unix_stream_sendmsg", 3, false),
    Attachment::function("unix_stream_recvmsg", 4, false),
    // Gone since 6.5, when they became sends like any other.
    Attachment::function("tcp_sendpage", 5, true),
    Attachment::function("unix_stream_sendpage", 5, true),
];

const SYSCALL_EXIT: [Attachment; 2] = [
    Attachment { program: "inet_sock_set_state_found", hook: Hook::Tracepoint(STATE) },
    Attachment::tracepoint("sys_exit"),
];

impl Source {
    /// Every source, best first.
    pub const ALL: [Self; 3] = [Self::SocketTracepoints, Self::SocketFunctions, Self::SyscallExit];

    /// What `--capture` and the logs call it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SocketTracepoints => "socket",
            Self::SocketFunctions => "fexit",
            Self::SyscallExit => "syscall",
        }
    }

    /// What it attaches.
    pub(super) fn attachments(self) -> &'static [Attachment] {
        match self {
            Self::SocketTracepoints => &SOCKET_TRACEPOINTS,
            Self::SocketFunctions => &SOCKET_FUNCTIONS,
            Self::SyscallExit => &SYSCALL_EXIT,
        }
    }

    /// Programs that have a record in the making at one time.
    pub(super) fn scratches(self) -> u32 {
        match self {
            Self::SocketTracepoints => 2,
            Self::SocketFunctions => 6,
            Self::SyscallExit => 1,
        }
    }

    /// Places for the states of TCP sockets; as many as the kernel half reckons with, or none that it asks for.
    pub(super) fn places(self) -> u32 {
        match self {
            Self::SocketTracepoints | Self::SocketFunctions => 1 << 15,
            Self::SyscallExit => 1,
        }
    }

    /// Sockets remembered in a map of our own, where the kernel does not remember them for us.
    pub(super) fn sockets_found(self) -> u32 {
        match self {
            Self::SocketTracepoints | Self::SocketFunctions => 1,
            Self::SyscallExit => 1 << 16,
        }
    }
}
