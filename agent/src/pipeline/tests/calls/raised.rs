//! What is raised within calls, who catches it, and what ends them all.

use super::*;

#[test]
fn exceptions_are_events_of_what_they_leave() {
    let mut scene = scene();
    let role = Role::Event { name: "exception".to_owned(), decode: None, catchers: Vec::new() };
    let sites = vec![SiteFacts { number: 30, kind: SiteKind::Event, into: None, reader: None }];
    let (name, module) = ("throw".to_owned(), "libc++".to_owned());
    let facts = FunctionFacts { number: 10, name, module, source: None, role, sites };
    scene.step(&Step::Function(Arc::new(facts)));
    let s = scene.outside(1);
    scene.asked(APP, s, "/a");
    // Caught in f0, which f1 and f2 have not survived; then nobody catches another one.
    scene.enter(APP, 0, sp(1));
    scene.enter(APP, 1, sp(2));
    scene.enter(APP, 2, sp(3));
    scene.hit(APP, 30, sp(4), 0);
    scene.leave(APP, 0, sp(1));
    scene.enter(APP, 3, sp(1));
    scene.hit(APP, 30, sp(4), 0);
    scene.enter(APP, 4, sp(0));
    scene.leave(APP, 4, sp(0));
    scene.write(APP, s, "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    // Outside of any span.
    scene.hit(APP, 30, sp(4), 0);
    assert_eq!(scene.pipeline.call_tallies().homeless, 1);
    check(
        &mut scene,
        expect![[r#"
        app /a 500 !exception
          app f0() (thread exact)
            app f1() (stack exact) !exception ~unwound
              app f2() (stack exact) !exception ~unwound
          app f3() (thread exact) !exception ~unwound
          app f4() (thread exact)
    "#]],
    );
    let events = |span: &&Span| !span.events.is_empty();
    let raised: Vec<_> = scene.spans.iter().filter(events).map(|span| &*span.name).collect();
    assert_eq!(raised, ["f2", "f3"]);
}

#[test]
fn who_catches_ends_what_it_had_called() {
    let mut scene = scene();
    for (number, decode) in [(10, None), (11, Some(Decode::CppCatch))] {
        let role = Role::Event { name: "exception".to_owned(), decode, catchers: Vec::new() };
        let site =
            SiteFacts { number: number * 3, kind: SiteKind::Event, into: None, reader: None };
        let (name, module) = ("throw".to_owned(), "libc++".to_owned());
        let facts = FunctionFacts { number, name, module, source: None, role, sites: vec![site] };
        scene.step(&Step::Function(Arc::new(facts)));
    }
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.enter(APP, 2, sp(2));
    scene.hit(APP, 30, sp(3), 0);
    // f0 catches: what it calls for that has its return address where that of f1 was.
    scene.hit(APP, 33, sp(1), 0);
    scene.wait(1_000_000_000);
    assert_eq!(scene.spans.len(), 2);
    // It goes on, and is left for another reason.
    scene.enter(APP, 3, sp(0));
    scene.leave(APP, 3, sp(0));
    check(
        &mut scene,
        expect![[r#"
        app f0() ~unwound
          app f1() (stack exact) !exception ~unwound
            app f2() (stack exact) !exception ~unwound
        app f3()
    "#]],
    );
}

impl Scene {
    /// A hook of this number, with one probe.
    fn hook(&mut self, number: u32, decode: Decode) {
        self.hook_with(number, decode, Vec::new());
    }

    /// One that knows who catches.
    fn hook_with(&mut self, number: u32, decode: Decode, catchers: Vec<Catcher>) {
        let role = Role::Event { name: "exception".to_owned(), decode: Some(decode), catchers };
        let sites = vec![SiteFacts { number, kind: SiteKind::Event, into: None, reader: None }];
        let (name, module) = (format!("hook {number}"), "library".to_owned());
        let facts = FunctionFacts { number, name, module, source: None, role, sites };
        self.step(&Step::Function(Arc::new(facts)));
    }

    /// Its hit, with chunks of number and bytes.
    fn raise(&mut self, (tgid, tid): Thread, site: u32, sp: u64, chunks: &[(u16, &[u8])]) {
        self.raise_in((tgid, tid, 0), site, sp, chunks);
    }

    /// In a goroutine, if it is not 0.
    fn raise_in(
        &mut self,
        (tgid, tid, task): (u32, u32, u64),
        site: u32,
        sp: u64,
        chunks: &[(u16, &[u8])],
    ) {
        self.now += 1000;
        let header = wire::Header { kind: kind::HIT, ts_ns: self.now, ..Default::default() };
        let mut bytes = Vec::new();
        for (number, chunk) in chunks {
            bytes.extend_from_slice(&number.to_ne_bytes());
            bytes.extend_from_slice(&0u16.to_ne_bytes());
            bytes.extend_from_slice(&(chunk.len() as u32).to_ne_bytes());
            bytes.extend_from_slice(chunk);
            bytes.resize(bytes.len().next_multiple_of(8), 0);
        }
        let copied = bytes.len() as u16;
        let task_kind = if task == 0 { task_kind::THREAD } else { task_kind::GOROUTINE };
        let hit =
            Hit { header, tgid, tid, task, task_kind, sp, site, copied, ..Default::default() };
        let record = records::hit(&hit, &bytes);
        self.record(header.cpu, record);
    }
}

/// What the events of a scene's spans say: the span, the type, the message, the line.
fn said(scene: &Scene) -> Vec<String> {
    let text = |event: &SpanEvent, key| match event.attributes.get(key) {
        Some(Value::Text(text)) => text.to_owned(),
        Some(Value::Int(number)) => number.to_string(),
        _ => "-".to_owned(),
    };
    let keys = ["exception.type", "exception.message", "code.line.number"];
    let of = |span: &Span| {
        let name = span.name.to_string();
        let say = move |event| format!("{name}: {}", keys.map(|key| text(event, key)).join(", "));
        span.events.iter().map(say).collect::<Vec<_>>()
    };
    scene.spans.iter().flat_map(of).collect()
}

#[test]
fn an_exception_that_was_caught_may_go_on() {
    let mut scene = scene();
    scene.hook(30, Decode::Cpp);
    scene.hook(31, Decode::CppCatch);
    scene.hook(32, Decode::CppRethrow);
    scene.enter(APP, 0, sp(0));
    for goes_on in [false, true] {
        scene.enter(APP, 1, sp(1));
        scene.enter(APP, 2, sp(2));
        scene.raise(APP, 30, sp(3), &[(0, b"St13runtime_error")]);
        // f1 catches it.
        scene.raise(APP, 31, sp(2), &[]);
        if goes_on {
            scene.raise(APP, 32, sp(2), &[]);
        } else {
            scene.leave(APP, 1, sp(1));
        }
    }
    scene.enter(APP, 3, sp(1));
    scene.leave(APP, 3, sp(1));
    scene.leave(APP, 0, sp(0));
    check(
        &mut scene,
        expect![[r#"
        app f0()
          app f1() (stack exact)
            app f2() (stack exact) !std::runtime_error ~unwound
          app f1() (stack exact) !std::runtime_error ~unwound
            app f2() (stack exact) !std::runtime_error ~unwound
          app f3() (stack exact)
    "#]],
    );
    assert_eq!(said(&scene), ["f2: std::runtime_error, -, -"; 2]);
}

#[test]
fn a_panic_has_the_place_that_was_told_before() {
    let mut scene = scene();
    scene.hook(30, Decode::RustPlace);
    scene.hook(31, Decode::RustPanic);
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let (slice, boxed) =
        (words(&[0x5000_0000_0000, 4]), words(&[0x5000_0000_0000, 0x5000_0000_0040]));
    let place = words(&[0x5000_0000_0000, 7, 12]);
    let size = words(&[16]);
    scene.enter(APP, 0, sp(0));
    scene.raise(APP, 30, sp(2), &[(0, &place), (1, b"main.rs")]);
    scene.raise(APP, 31, sp(3), &[(0, &size), (1, &slice), (5, b"boom")]);
    // What another thread has said is of no use here.
    scene.raise(OTHER, 30, sp(2), &[(0, &place), (1, b"main.rs")]);
    scene.raise(APP, 31, sp(3), &[(0, &size), (1, &slice), (5, b"bang")]);
    // One that was caught goes on: it is no new one.
    scene.raise(APP, 31, sp(3), &[(0, &size), (1, &boxed)]);
    scene.leave(APP, 0, sp(0));
    scene.collect();
    assert_eq!(said(&scene), ["f0: panic, boom, 12", "f0: panic, bang, -"]);
}

#[test]
fn a_signal_fails_what_its_thread_was_in() {
    let mut scene = scene();
    scene.enter(APP, 0, sp(0));
    scene.enter(APP, 1, sp(1));
    scene.enter(OTHER, 2, sp(0) - 0x100_0000);
    let (tgid, tid) = APP;
    scene.task(kind::SIGNAL, [tgid, tid, 11, 0]);
    scene.exit(tgid);
    check(
        &mut scene,
        expect![[r#"
        app f0() !SIGSEGV ~exit
          app f1() (stack exact) !SIGSEGV ~exit
        app f2() ~exit
    "#]],
    );
    assert_eq!(said(&scene), ["f1: SIGSEGV, fatal signal 11, -"]);
}

/// What each span of a scene says of the end of its process.
fn ends(scene: &Scene) -> Vec<String> {
    let of = |span: &Span| {
        let code = match span.attributes.get("process.exit.code") {
            Some(Value::Int(code)) => code.to_string(),
            _ => "-".to_owned(),
        };
        let signal = match span.attributes.get("remora.process.exit.signal") {
            Some(Value::Text(signal)) => signal.to_owned(),
            _ => "-".to_owned(),
        };
        format!("{} {code} {signal}", span.name)
    };
    let mut ends: Vec<_> = scene.spans.iter().map(of).collect();
    ends.sort();
    ends
}

#[test]
fn what_is_open_says_how_its_process_ended() {
    let unknown = wire::STATUS_UNKNOWN;
    for (status, said) in
        [(0, "- -"), (0x300, "3 -"), (0x8b, "- SIGSEGV"), (40, "- 40"), (unknown, "- -")]
    {
        let mut scene = scene();
        scene.process(2, "other");
        let [done, open, others] = [scene.outside(1), scene.outside(1), scene.outside(2)];
        scene.asked(APP, done, "/done");
        scene.write(APP, done, "HTTP/1.1 204 No\r\n\r\n");
        scene.asked(APP, open, "/open");
        scene.asked((2, 1), others, "/other");
        scene.enter(APP, 0, sp(0));
        // A thread that has ended before, and one that ends with the process.
        scene.enter((1, 3), 1, sp(0) - 0x100_0000);
        scene.task(kind::THREAD_EXIT, [1, 3, unknown, 0]);
        scene.enter((1, 4), 2, sp(0) - 0x200_0000);
        scene.task(kind::THREAD_EXIT, [1, 4, status, 0]);
        scene.task(kind::EXIT, [1, 1, status, 0]);
        scene.wait(1_000_000_000);
        scene.step(&Step::Finish(MonoNs(scene.now)));
        let expected = ["GET - -".to_owned(), "GET - -".to_owned(), format!("GET {said}")];
        let calls = [format!("f0 {said}"), "f1 - -".to_owned(), format!("f2 {said}")];
        let mut expected = [expected, calls].concat();
        expected.sort();
        assert_eq!(ends(&scene), expected, "{status:#x}");
    }
}

/// What the hooks of Java's exceptions read, as their code numbers it.
mod java {
    pub(super) const MESSAGE: u16 = 1;
    pub(super) const HANDLER: u16 = 2;
    pub(super) const END: u16 = 3;
    pub(super) const HOLDER: u16 = 4;
    /// How often objects were moved, whether they are being, and how often they had been before.
    pub(super) const COLLECTIONS: u16 = 50;
    pub(super) const COLLECTING: u16 = 51;
    pub(super) const COLLECTIONS_BEFORE: u16 = 52;
}

#[test]
fn an_exception_is_complete_where_it_comes_by() {
    let mut scene = scene();
    for (number, decode) in
        [(30, Decode::Java), (31, Decode::JavaPassed), (32, Decode::JavaUncaught)]
    {
        scene.hook(number, decode);
    }
    let word = |word: u64| word.to_le_bytes();
    let (moved, object) = (word(5), |number: u64| word(0x7000_0000 + number * 64));
    // A method with a handler at 20: for a type.
    let handler = [word(0x5044), word(0x30), word(0x5000)].concat();
    let handler = [&handler[..], &[8, 0, 50, 0]].concat();
    let end = [0u16, 8, 20, 5, 1].map(u16::to_le_bytes).concat();
    scene.enter(APP, 0, sp(0));
    for number in 0..6 {
        let chunks: [(u16, &[u8]); 5] = [
            (java::COLLECTIONS_BEFORE, &moved),
            (java::COLLECTING, &word(0)),
            (OBJECT, &object(number)),
            (java::COLLECTIONS, &moved),
            (0, &[b'A' + number as u8]),
        ];
        scene.raise(APP, 30, sp(4), &chunks);
    }
    let mut pass = |hook, number, moved: u64, more: &[(u16, &[u8])]| {
        let (object, moved) = (object(number), word(moved));
        let own: [(u16, &[u8]); 2] = [(OBJECT, &object), (java::COLLECTIONS, &moved)];
        // Wherever on the stack: it may have been made there or here.
        scene.raise(APP, hook, sp(9), &[&own, more].concat());
    };
    let caught: [(u16, &[u8]); 3] =
        [(java::HANDLER, &handler), (java::END, &end), (java::HOLDER, b"app/Main")];
    let by_jdk: [(u16, &[u8]); 3] = [caught[0], caught[1], (java::HOLDER, b"java/uti")];
    // A is caught, B by somebody else, C goes on, D is moved, E ends its thread, F is not thrown.
    pass(31, 0, 5, &[&[(java::MESSAGE, &b"\0first"[..])], &caught[..]].concat());
    pass(31, 1, 5, &[&[(java::MESSAGE, &b"\0password=x"[..])], &by_jdk[..]].concat());
    pass(31, 2, 5, &caught);
    pass(31, 2, 5, &[(java::MESSAGE, b"\x01a\0b\0")]);
    pass(31, 3, 6, &[&[(java::MESSAGE, &b"\0another"[..])], &caught[..]].concat());
    pass(31, 4, 5, &caught);
    pass(32, 4, 5, &[(java::MESSAGE, b"\0last")]);
    scene.leave(APP, 0, sp(0));
    scene.collect();
    assert_eq!(
        said(&scene),
        [
            "f0: A, first, -",
            "f0: B, password=REDACTED, -",
            "f0: C, ab, -",
            "f0: D, -, -",
            "f0: E, last, -",
            "f0: F, -, -",
        ]
    );
    let fates = ["A caught", "B unknown", "C unknown", "D unknown", "E not caught", "F unknown"];
    assert_eq!(self::fates(&scene), fates.map(|fate| format!("f0: {fate}")));
}

/// What the events of a scene's spans say: the span, the type, and whether it was caught.
fn fates(scene: &Scene) -> Vec<String> {
    let of = |span: &Span| {
        let name = span.name.to_string();
        let say = move |event: &SpanEvent| {
            let kind = match event.attributes.get("exception.type") {
                Some(Value::Text(text)) => text.to_owned(),
                _ => "-".to_owned(),
            };
            let caught = match event.attributes.get("remora.exception.caught") {
                Some(Value::Bool(true)) => "caught",
                Some(Value::Bool(false)) => "not caught",
                _ => "unknown",
            };
            format!("{name}: {kind} {caught}")
        };
        span.events.iter().map(say).collect::<Vec<_>>()
    };
    scene.spans.iter().flat_map(of).collect()
}

/// Numbers of the chunks that all hooks have in common: the object, where one was called from, where it is.
const OBJECT: u16 = 40;
const CALLER: u16 = 41;
const HERE: u16 = 42;

#[test]
fn whether_an_exception_was_caught_is_told_by_who_took_it() {
    let mut scene = scene();
    scene.hook(30, Decode::Cpp);
    // What throws takes what nobody catches; so might another function of its library.
    let catcher = |start, kind| Catcher { start, bytes: 0x100, kind };
    scene.hook_with(
        31,
        Decode::CppCatch,
        vec![catcher(-0x100, CatcherKind::Last), catcher(0x200, CatcherKind::Caller)],
    );
    let object = |number: u64| (0x5000_0000 + number * 0x100).to_le_bytes();
    let unwind = |number: u64| (0x5000_0000 - 32 + number * 0x100).to_le_bytes();
    let here = 0x7000_0000u64;
    scene.enter(APP, 0, sp(0));
    for (number, caller) in [(0, here + 0x1000), (1, here + 0x210), (2, here - 0x80)] {
        scene.enter(APP, 1, sp(1));
        let name: &[u8] = b"St13runtime_error";
        scene.raise(APP, 30, sp(2), &[(0, name), (OBJECT, &object(number))]);
        // Another one, which says nothing of this one.
        let (caller, here) = (caller.to_le_bytes(), here.to_le_bytes());
        let says = |number: u64| [(OBJECT, unwind(number)), (CALLER, caller), (HERE, here)];
        for number in [7, number] {
            let says = says(number);
            let says: Vec<(u16, &[u8])> = says.iter().map(|(n, b)| (*n, b.as_slice())).collect();
            // Deeper than all that is open: nothing is left yet.
            scene.raise(APP, 31, sp(9), &says);
        }
        if number < 2 {
            scene.leave(APP, 1, sp(1));
        }
    }
    scene.exit(1);
    check(
        &mut scene,
        expect![[r#"
        app f0() !std::runtime_error ~exit
          app f1() (stack exact)
          app f1() (stack exact)
          app f1() (stack exact) !std::runtime_error ~exit
    "#]],
    );
    let kind = "f1: std::runtime_error";
    let expected = ["caught", "unknown", "not caught"].map(|fate| format!("{kind} {fate}"));
    assert_eq!(fates(&scene), expected);
}

#[test]
fn a_rust_panic_is_the_latest_of_its_thread_below_who_catches() {
    let mut scene = scene();
    scene.hook(30, Decode::RustPanic);
    scene.hook(31, Decode::RustCatch);
    let words = |words: &[u64]| -> Vec<u8> { words.iter().flat_map(|w| w.to_le_bytes()).collect() };
    let (size, slice) = (words(&[16]), words(&[0x5000_0000_0000, 4]));
    let boxed = words(&[0x5000_0000_0000, 0x5000_0000_0040]);
    let from = [0x7000_1000u64.to_le_bytes(), 0x7000_0000u64.to_le_bytes()];
    let [caller, here] = &from;
    let caught: &[(u16, &[u8])] = &[(CALLER, caller), (HERE, here)];
    let panic: &[(u16, &[u8])] = &[(0, &size), (1, &slice), (5, b"boom")];
    scene.enter(APP, 0, sp(0));
    // Caught once; the second time it is an old one that goes on.
    scene.raise(APP, 30, sp(3), panic);
    scene.raise(APP, 31, sp(2), caught);
    scene.enter(APP, 1, sp(1));
    scene.raise(APP, 30, sp(4), panic);
    scene.raise(APP, 30, sp(4), &[(0, &size), (1, &boxed)]);
    scene.raise(APP, 31, sp(2), caught);
    // Another thread's is another one, and so is one that was raised above.
    scene.raise(OTHER, 31, sp(2), caught);
    scene.raise(APP, 31, sp(6), caught);
    scene.leave(APP, 1, sp(1));
    scene.leave(APP, 0, sp(0));
    scene.wait(1_000_000_000);
    assert_eq!(fates(&scene), ["f1: panic unknown", "f0: panic caught"]);
}

#[test]
fn a_goroutine_recovers_on_another_stack() {
    let mut scene = scene();
    scene.hook(30, Decode::GoPanic);
    let serve = Catcher { start: 0x1000, bytes: 0x100, kind: CatcherKind::Handler };
    scene.hook_with(31, Decode::GoRecovery, vec![serve]);
    let (low, high) = (0xc000_0000u64, 0xc000_8000u64);
    let stack = [low.to_le_bytes(), high.to_le_bytes()].concat();
    // A panic as it has been until Go 1.25, with a word more at its start, and since.
    let image = |depth: u64, pc: u64, older: bool| {
        let start = high - depth * 0x100 - 0x80;
        let frame = high - 0x40 + 8;
        let words = [1, 2, 0, pc, start, start + 8, pc, frame, pc];
        let extra = older.then_some(3);
        extra.into_iter().chain(words).flat_map(u64::to_le_bytes).collect::<Vec<_>>()
    };
    let here = 0x40_0000u64;
    let go = |scene: &mut Scene, site: u32, sp: u64, chunks: &[(u16, &[u8])]| {
        scene.raise_in((1, 1, 7), site, sp, chunks);
    };
    let mut expected = Vec::new();
    for (pc, older, fate) in
        [(0x5000, false, "caught"), (0x5000, true, "caught"), (0x1080, false, "not caught")]
    {
        go(&mut scene, 0, 0u64.wrapping_sub(0x40), &[]);
        go(&mut scene, 3, 0u64.wrapping_sub(0x80), &[]);
        let object = ((1u64 << 20) + 2).to_le_bytes();
        go(&mut scene, 30, 0u64.wrapping_sub(0x200), &[(OBJECT, &object)]);
        let (id, place) = (7u64.to_le_bytes(), here.to_le_bytes());
        let image = image(2, here + pc, older);
        let recovered: &[(u16, &[u8])] = &[(1, &stack), (2, &image), (3, &id), (HERE, &place)];
        // On the stack of the scheduler.
        scene.raise(APP, 31, 0x7fff_0000, recovered);
        go(&mut scene, 1, 0u64.wrapping_sub(0x40), &[]);
        expected.push(format!("f1: panic {fate}"));
    }
    scene.wait(1_000_000_000);
    assert_eq!(fates(&scene), expected);
}

/// What nobody has caught in Python: the exception itself, or what only it was made of.
#[test]
fn a_python_exception_that_nobody_has_caught_is_one_that_is_known() {
    let mut scene = scene();
    scene.hook(30, Decode::Python);
    scene.hook(31, Decode::PythonUncaught);
    scene.enter(APP, 0, sp(0));
    let is_exception = (1u64 << 30).to_le_bytes();
    let raise = |scene: &mut Scene, name: &[u8], value: u64, flags: &[u8]| {
        scene.raise(APP, 30, sp(2), &[(0, name), (3, &value.to_le_bytes()), (4, flags)]);
    };
    let uncaught = |scene: &mut Scene, exception: u64, argument: u64| {
        let (exception, argument) = (exception.to_le_bytes(), argument.to_le_bytes());
        // The outermost frame has ended.
        let ended: [(u16, &[u8]); 2] = [(3, &[0; 8]), (4, &[1])];
        let what: [(u16, &[u8]); 3] = [(0, &exception), (1, &[9; 8]), (2, &argument)];
        scene.raise(APP, 31, sp(9), &[&what[..], &ended].concat());
    };
    raise(&mut scene, b"Caught", 0x5000, &is_exception);
    raise(&mut scene, b"Left", 0x5100, &is_exception);
    uncaught(&mut scene, 0x5100, 0x6000);
    // Made of text of its own.
    raise(&mut scene, b"Made", 0x6100, &[0; 8]);
    uncaught(&mut scene, 0x5200, 0x6100);
    // Made of what another one was made of before, and one that was not seen.
    raise(&mut scene, b"Once", 0x6200, &[0; 8]);
    raise(&mut scene, b"Twice", 0x6200, &[0; 8]);
    uncaught(&mut scene, 0x5300, 0x6200);
    uncaught(&mut scene, 0x5400, 0x6400);
    scene.leave(APP, 0, sp(0));
    scene.wait(1_000_000_000);
    let fates: Vec<String> =
        fates(&scene).into_iter().map(|fate| fate.replace("f0: ", "")).collect();
    assert_eq!(
        fates,
        ["Caught unknown", "Left not caught", "Made not caught", "Once unknown", "Twice unknown"]
    );
}
