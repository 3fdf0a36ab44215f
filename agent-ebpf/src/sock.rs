//! Two ways to look at a `struct sock`: as a pointer whose type the verifier knows, and as an
//! address found by walking from a file descriptor. Everything above is written once for both.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::BPF_SK_STORAGE_GET_F_CREATE;
use aya_ebpf::btf_maps::SkStorage;
use aya_ebpf::helpers::generated::{
    bpf_get_socket_cookie, bpf_probe_read_kernel, bpf_sk_storage_get, bpf_skc_to_tcp_sock,
    bpf_skc_to_unix_sock,
};
use aya_ebpf::macros::{btf_map, map};
use aya_ebpf::maps::LruHashMap;

use crate::offsets::{self, offset};
use crate::{emit, places};

/// What is kept with a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct State {
    /// Unique while the agent runs.
    pub id: u64,
    /// Where nginx keeps what it knows of its connection to another server, if that has been found.
    pub connection: u64,
    /// Operations so far, lost ones included.
    op: u32,
    /// For which process its `Socket` record was written, if it was.
    pub told: u32,
    /// Whether a peer is known to have connected to it, as far as that was known when it was told.
    pub accepted: u16,
    /// Whether a request was written by it, and it was not known yet for whom.
    pub asks: u16,
    /// Zero: two of these are a line of memory.
    pad: u64,
}

/// What is kept for a [`Found`] one.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FoundState {
    /// As of any.
    pub state: State,
    /// Inode of the socket for which this was made, since the kernel does not remove it with it.
    inode: u64,
}

/// Connections of one socket are told apart above what its first id has, which is the kernel's cookie: that
/// counts sockets, and does not come so far.
const NEXT_CONNECTION: u64 = 1 << 48;

impl State {
    const fn fresh(id: u64) -> Self {
        Self { id, connection: 0, op: 0, told: 0, accepted: 0, asks: 0, pad: 0 }
    }

    /// Forgets everything but whose it is.
    #[inline(always)]
    pub fn clear(&mut self) {
        *self = Self::fresh(self.id);
    }

    /// What follows is another connection's.
    #[inline(always)]
    pub fn renew(&mut self) {
        if self.told != 0 {
            *self = Self::fresh(self.id.wrapping_add(NEXT_CONNECTION));
        }
    }

    /// Whether an id is that of a connection of the socket with this cookie.
    #[inline(always)]
    pub fn is_of(id: u64, cookie: u64) -> bool {
        (id ^ cookie) & (NEXT_CONNECTION - 1) == 0
    }

    /// The number of the next operation.
    #[inline(always)]
    pub fn op(&self) -> u32 {
        self.op
    }

    /// Numbers an operation.
    #[inline(always)]
    pub fn next_op(&mut self) -> u32 {
        let op = self.op;
        self.op = op.wrapping_add(1);
        op
    }
}

impl FoundState {
    /// Whether the [`Found`] socket that it was made for is no longer at this address. Memory of a socket that
    /// was freed may still look like it: then it is not gone yet.
    #[inline(always)]
    pub fn is_gone(&self, at: u64) -> bool {
        let file =
            Found::new(at as *const u8, 0).follow(offset!(sk_socket)).follow(offset!(socket_file));
        let inode: u64 = file.follow(offset!(file_inode)).load(offset!(inode_number));
        self.inode != 0 && self.inode != inode
    }
}

/// Freed by the kernel with the socket. Of TCP sockets, those that have no place.
#[btf_map(name = "SOCKETS")]
static SOCKETS: SkStorage<State> = SkStorage::new();

/// By address of the socket, for [`Found`] ones. Entries of TCP sockets go when these close; Unix
/// sockets have no hook for that, so the oldest go when the map is full.
#[map(name = "SOCKETS_FOUND")]
static SOCKETS_FOUND: LruHashMap<u64, FoundState> = LruHashMap::with_max_entries(1, 0);

const IPPROTO_TCP: u16 = 6;

/// A socket that fields can be read from.
pub trait Sock: Copy {
    /// Whether the verifier tracks it.
    const IS_TYPED: bool;

    /// Where it lies.
    fn address(self) -> u64;

    /// Reads the field of type `T` at `offset`; zeroes if the socket is gone.
    fn load<T: Copy>(self, offset: usize) -> T;

    /// Reads the pointer at `offset`, to look at what is behind it in the same way.
    fn follow(self, offset: usize) -> Self;

    /// The same as a `tcp_sock`, if it is one.
    fn as_tcp(self) -> Option<Self>;

    /// The same as a `unix_sock`; asked for Unix sockets only.
    fn as_unix(self) -> Option<Self>;

    /// Whether user space holds it by a descriptor. The kernel has sockets of its own (NFS, SMC),
    /// which it uses in the context of whatever task is there.
    fn has_file(self) -> bool;

    /// Its state, made if there is none, and the id of another socket that was told of and was at its address
    /// before; 0 if none was.
    fn state(self) -> Option<(&'static mut State, u64)>;

    /// Its state, if there is one.
    fn known(self) -> Option<&'static mut State>;

    /// A connection begins: what is known is of another one. Of a socket that had one (connect(2) with
    /// `AF_UNSPEC` lies between), or of another socket that lay here.
    fn begins(self, is_accepted: bool);

    /// Forgets its state.
    fn forget(self);
}

/// A pointer that the verifier tracks by its BTF type.
#[derive(Clone, Copy)]
pub struct Typed(*const u8);

impl Typed {
    /// # Safety
    /// `at` comes from the program's typed context (or was loaded from such a pointer).
    #[inline(always)]
    pub unsafe fn new(at: *const u8) -> Self {
        Self(at)
    }

    #[inline(always)]
    fn storage(self, flags: u64) -> Option<&'static mut State> {
        let map = (&raw const SOCKETS).cast_mut().cast();
        let sk = self.0.cast_mut().cast();
        // SAFETY: `sk` is a typed socket pointer; a null value means zeroes.
        let state = unsafe { bpf_sk_storage_get(map, sk, ptr::null_mut(), flags) };
        let state = state.cast::<State>();
        if state.is_null() {
            return None;
        }
        // SAFETY: storage lives as long as the socket, which lives while the program runs.
        Some(unsafe { &mut *state })
    }
}

impl Typed {
    /// The kernel's number of it, which is its state's id; 0 if nobody has asked for that, and it has no state.
    #[inline(always)]
    fn cookie(self) -> u64 {
        self.load::<u64>(offset!(skc_cookie))
    }

    /// The state of a socket that has no place: made if there is none, at its place if that is free. Not on the
    /// way of every operation.
    #[inline(never)]
    fn seek(self) -> Option<&'static mut State> {
        if let Some(state) = self.storage(0) {
            return Some(state);
        }
        // SAFETY: typed socket pointer.
        let cookie = unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) };
        // Nothing tells the end of others.
        if self.as_tcp().is_some()
            && let Some(state) = places::take(cookie)
        {
            return Some(state);
        }
        let state = self.storage(u64::from(BPF_SK_STORAGE_GET_F_CREATE))?;
        state.id = cookie;
        Some(state)
    }
}

impl Sock for Typed {
    const IS_TYPED: bool = true;

    #[inline(always)]
    fn address(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the constructor's promise; the verifier rejects what is not a field.
        unsafe { offsets::load(self.0, offset) }
    }

    #[inline(always)]
    fn follow(self, offset: usize) -> Self {
        Self(self.load::<*const u8>(offset))
    }

    #[inline(always)]
    fn as_tcp(self) -> Option<Self> {
        // SAFETY: typed socket pointer.
        let tcp = unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) } as *const u8;
        if tcp.is_null() { None } else { Some(Self(tcp)) }
    }

    #[inline(always)]
    fn as_unix(self) -> Option<Self> {
        // SAFETY: typed socket pointer.
        let unix = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut().cast()) } as *const u8;
        if unix.is_null() { None } else { Some(Self(unix)) }
    }

    #[inline(always)]
    fn has_file(self) -> bool {
        let socket = self.follow(offset!(sk_socket));
        socket.load::<u64>(offset!(socket_file)) != 0
    }

    #[inline(always)]
    fn state(self) -> Option<(&'static mut State, u64)> {
        let state = places::of(self.cookie()).or_else(|| self.seek());
        state.map(|state| (state, 0))
    }

    #[inline(always)]
    fn known(self) -> Option<&'static mut State> {
        let cookie = self.cookie();
        if cookie == 0 {
            return None;
        }
        match places::of(cookie) {
            Some(state) => Some(state),
            None => self.storage(0),
        }
    }

    #[inline(always)]
    fn begins(self, is_accepted: bool) {
        // What is accepted is made, and has nothing yet.
        if !is_accepted && let Some(state) = self.known() {
            state.renew();
        }
    }

    #[inline(always)]
    fn forget(self) {
        places::give_back(self.cookie());
    }
}

/// An address that the program found itself, read with `bpf_probe_read_kernel`.
#[derive(Clone, Copy)]
pub struct Found {
    at: *const u8,
    inode: u64,
}

impl Found {
    /// A socket (or anything else in the kernel, to walk from) and its inode's number, 0 if that
    /// is not known.
    #[inline(always)]
    pub fn new(at: *const u8, inode: u64) -> Self {
        Self { at, inode }
    }

    /// Whether there is nothing.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.at.is_null()
    }

    #[inline(always)]
    fn found(self) -> Option<&'static mut FoundState> {
        let found = SOCKETS_FOUND.get_ptr_mut(&self.address())?;
        // SAFETY: a map value, whose memory stays a `FoundState` while the program runs.
        Some(unsafe { &mut *found })
    }
}

impl Sock for Found {
    const IS_TYPED: bool = false;

    #[inline(always)]
    fn address(self) -> u64 {
        self.at as u64
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: usize) -> T {
        let mut value = MaybeUninit::<T>::uninit();
        let from = self.at.wrapping_add(offset).cast();
        // SAFETY: `value` holds exactly that many bytes; the helper fails instead of faulting and
        // fills them with zeroes then.
        unsafe { bpf_probe_read_kernel(value.as_mut_ptr().cast(), size_of::<T>() as u32, from) };
        // SAFETY: the helper has written all of it; callers read integers and pointers.
        unsafe { value.assume_init() }
    }

    #[inline(always)]
    fn follow(self, offset: usize) -> Self {
        Self { at: self.load::<*const u8>(offset), inode: 0 }
    }

    #[inline(always)]
    fn as_tcp(self) -> Option<Self> {
        if self.load::<u16>(offset!(sk_protocol)) == IPPROTO_TCP { Some(self) } else { None }
    }

    #[inline(always)]
    fn as_unix(self) -> Option<Self> {
        Some(self)
    }

    #[inline(always)]
    fn has_file(self) -> bool {
        true
    }

    #[inline(always)]
    fn state(self) -> Option<(&'static mut State, u64)> {
        // No two sockets are first seen on one CPU in the same nanosecond.
        let fresh = || FoundState {
            state: State::fresh((emit::now_ns() << 12) | u64::from(emit::cpu() & 0xfff)),
            inode: self.inode,
        };
        if let Some(found) = self.found() {
            let mut before = 0;
            if found.inode != self.inode {
                before = if found.state.told == 0 { 0 } else { found.state.id };
                *found = fresh();
            }
            return Some((&mut found.state, before));
        }
        let _ = SOCKETS_FOUND.insert(&self.address(), &fresh(), 0);
        Some((self.known()?, 0))
    }

    #[inline(always)]
    fn known(self) -> Option<&'static mut State> {
        self.found().map(|found| &mut found.state)
    }

    #[inline(always)]
    fn begins(self, is_accepted: bool) {
        if let Some(found) = self.found() {
            if is_accepted || found.is_gone(self.address()) {
                self.forget();
            } else {
                found.state.renew();
            }
        }
    }

    #[inline(always)]
    fn forget(self) {
        let _ = SOCKETS_FOUND.remove(&self.address());
    }
}

/// The id that a socket has got, as [`Typed`] or as [`Found`], if it has one.
#[inline(always)]
pub fn id_of(sock: Found, is_typed: bool) -> Option<u64> {
    let id = if is_typed {
        sock.load::<u64>(offset!(skc_cookie))
    } else {
        sock.known().map_or(0, |state| state.id)
    };
    if id == 0 { None } else { Some(id) }
}
