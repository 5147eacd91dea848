import EventLoop
import LinuxIO
import Primitives
import Synchronization
import TestSupport
import Testing

/// Accepts connections and sends back what they send, never holding more than one read of them.
private final class EchoServer: ListenerHandler, StreamHandler {
    let loop: Loop
    var buffer = ByteBuffer()
    var pendingMax = 0

    init(_ loop: Loop) { self.loop = loop }

    func accepted(_ connection: consuming Accepted, by listener: Listener) {
        _ = try? loop.adopt(connection.take(), handler: self)
    }
    func acceptPaused(_ listener: Listener, _ error: SystemError) {}
    func streamConnected(_ stream: Stream) {}

    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes, stream.pendingOutput == 0 {
            buffer.clear()
            switch stream.receive(into: &buffer, room: 16_384) {
            case .bytes: send(buffer, stream)
            case .wouldBlock: return
            case .endOfFile, .failed:
                stream.close()
                return
            }
        }
    }
    private func send(_ buffer: borrowing ByteBuffer, _ stream: Stream) {
        stream.send(buffer.bytes)
        pendingMax = max(pendingMax, stream.pendingOutput)
    }
    func streamDrained(_ stream: Stream) { stream.resumeReading() }
    func streamFailed(_ stream: Stream, _ error: SystemError) { stream.close() }
    func streamDeadlinePassed(_ stream: Stream) {}
}

/// Sends a pattern and checks what comes back.
private final class EchoClient: StreamHandler {
    let total: Int
    var sent = 0
    var received = 0
    var intact = true
    var connected = false
    var failure: SystemError?
    var expired = 0
    var buffer = ByteBuffer()

    init(total: Int) { self.total = total }

    private func produce(_ stream: Stream) {
        while sent < total, stream.pendingOutput == 0 {
            let n = min(50_000, total - sent)
            let bytes = (0..<n).map { UInt8(truncatingIfNeeded: (sent + $0) &* 31) }
            stream.send(bytes.span)
            sent += n
        }
    }
    func streamConnected(_ stream: Stream) {
        connected = true
        produce(stream)
    }
    func streamReadable(_ stream: Stream) {
        while stream.mayHaveBytes {
            buffer.clear()
            guard case .bytes = stream.receive(into: &buffer, room: 4_096) else { return }
            check(buffer)
        }
    }
    private func check(_ buffer: borrowing ByteBuffer) {
        let bytes = buffer.bytes
        for i in bytes.indices where bytes[i] != UInt8(truncatingIfNeeded: (received + i) &* 31) { intact = false }
        received += bytes.count
    }
    func streamDrained(_ stream: Stream) { produce(stream) }
    func streamFailed(_ stream: Stream, _ error: SystemError) {
        failure = error
        stream.close()
    }
    func streamDeadlinePassed(_ stream: Stream) { expired += 1 }
}

private func turns(_ loop: Loop, most: Int = 100_000, until done: () -> Bool) {
    for _ in 0..<most where !done() { loop.turn(waitMax: .milliseconds(200)) }
}

private let loopback = SocketAddress(ip: .v4Loopback, port: 0)

@Suite("Streams")
struct StreamTests {
    @Test(
        "bytes of a slow exchange arrive whole and in order, and no more than one read is held",
        arguments: [0, 1, 4_096, 8_000_000])
    func echo(total: Int) throws {
        let loop = try Loop(waker: Waker())
        let server = EchoServer(loop)
        let listener = try loop.listen(on: ListeningSocket(loopback, reusePort: false), handler: server)
        let client = EchoClient(total: total)
        let stream = try loop.connect(to: .tcp(listener.socket.address), handler: client)
        turns(loop) { client.connected && client.received == total }
        #expect(client.received == total)
        #expect(client.intact)
        #expect(server.pendingMax <= 16_384)
        stream.close()
    }

    @Test("a refused connection is told as a failure")
    func refused() throws {
        let loop = try Loop(waker: Waker())
        let unused = try HeldPort()
        defer { withExtendedLifetime(unused) {} }
        let client = EchoClient(total: 1)
        _ = try loop.connect(to: .tcp(unused.address), handler: client)
        turns(loop) { client.failure != nil }
        #expect(client.failure?.reason == "Connection refused")
    }

    @Test("a deadline fires once, not before its time, and moving it later keeps it from firing")
    func deadline() throws {
        let loop = try Loop(waker: Waker())
        let server = EchoServer(loop)
        let listener = try loop.listen(on: ListeningSocket(loopback, reusePort: false), handler: server)
        let client = EchoClient(total: 0)
        let stream = try loop.connect(to: .tcp(listener.socket.address), handler: client)
        turns(loop) { client.connected }
        let due = loop.now + .milliseconds(20)
        stream.deadline = due
        stream.deadline = due + .milliseconds(40)
        while client.expired == 0 { loop.turn(waitMax: .milliseconds(200)) }
        #expect(loop.now >= due + .milliseconds(40))
        loop.turn(waitMax: .milliseconds(30))
        #expect(client.expired == 1)
    }

    @Test("an event for a stream that was closed reaches nobody, even when its slot is taken again")
    func staleEvents() throws {
        let loop = try Loop(waker: Waker())
        let server = EchoServer(loop)
        let listener = try loop.listen(on: ListeningSocket(loopback, reusePort: false), handler: server)
        let first = EchoClient(total: 0)
        let stream = try loop.connect(to: .tcp(listener.socket.address), handler: first)
        stream.close()
        let second = EchoClient(total: 10)
        _ = try loop.connect(to: .tcp(listener.socket.address), handler: second)
        turns(loop) { second.received == 10 }
        #expect(!first.connected)
        #expect(second.received == 10)
    }

    @Test("a port in use is an error, also where SO_REUSEPORT would hide it")
    func portInUse() throws {
        let first = try ListeningSocket(loopback, reusePort: true)
        #expect(throws: SystemError("bind", number: 98)) {
            _ = try ListeningSocket(first.address, reusePort: true)
        }
        _ = try ListeningSocket(first.address, reusePort: true, probeFirst: false)
    }
}

private final class Counter: WakeHandler, EndOfTurnHandler {
    let mailbox: Mailbox<Int>
    let loop: Loop
    var sum = 0
    var turnsEnded = 0
    init(_ loop: Loop) {
        self.loop = loop
        mailbox = Mailbox(waker: loop.waker)
    }
    func woken() {
        for n in mailbox.take() { sum += n }
        loop.atEndOfTurn(self)
    }
    func turnEnded() { turnsEnded += 1 }
}

@Suite("The loop")
struct LoopTests {
    @Test("every message that other threads post arrives, and the turn in which it does has one end")
    func mailbox() throws {
        let loop = try Loop(waker: Waker())
        let counter = Counter(loop)
        loop.addWakeHandler(counter)
        let mailbox = counter.mailbox
        let threads = (0..<4).map { _ in OSThread(name: "poster") { for n in 1...1_000 { mailbox.post(n) } } }
        turns(loop) { counter.sum == 4 * 500_500 }
        for thread in threads { thread.join() }
        #expect(counter.sum == 4 * 500_500)
        #expect(counter.turnsEnded > 0)
    }

    @Test("what is postponed waits for its time, or for a moment in which nothing happens, whichever is first")
    func postponed() throws {
        let loop = try Loop(waker: Waker())
        let counter = Counter(loop)
        loop.addWakeHandler(counter)
        loop.atEndOfTurn(counter, after: loop.now + .seconds(3600))
        loop.turn(waitMax: .milliseconds(1))
        #expect(counter.turnsEnded == 0)
        // An event, and the call that it asks for; it is no lull.
        counter.mailbox.post(1)
        loop.atEndOfTurn(counter, after: loop.now + .seconds(3600), orLull: .milliseconds(1))
        loop.turn()
        #expect(!loop.wasQuiet)
        #expect(counter.turnsEnded == 1)
        // Nothing comes: called once, though it had asked twice.
        loop.turn()
        #expect(loop.wasQuiet)
        #expect(counter.turnsEnded == 2)
        loop.turn(waitMax: .milliseconds(1))
        #expect(counter.turnsEnded == 2)
        loop.atEndOfTurn(counter, after: loop.now + .milliseconds(1))
        loop.turn()
        #expect(counter.turnsEnded == 3)
    }

    @Test("a timer can be scheduled again from its own call, and cancelled")
    func timer() throws {
        let loop = try Loop(waker: Waker())
        var fired = 0
        var timer: LoopTimer?
        timer = LoopTimer(loop) {
            fired += 1
            if fired < 3 { timer?.schedule(after: .milliseconds(5)) }
        }
        timer?.schedule(after: .milliseconds(5))
        let cancelled = LoopTimer(loop) { fired += 100 }
        cancelled.schedule(after: .milliseconds(5))
        cancelled.cancel()
        turns(loop) { fired >= 3 }
        loop.turn(waitMax: .milliseconds(30))
        #expect(fired == 3)
    }

    @Test("the resolver answers with the addresses of a name and with the reason where there are none")
    func resolver() throws {
        let resolver = Resolver()
        let answers = Mutex<[String]>([])
        let done = Waiter()
        for host in ["127.0.0.1", "localhost", "no-such-host.invalid"] {
            resolver.resolve(host) { answer in
                answers.withLock { list in
                    switch answer {
                    case .success(let addresses): list.append("\(host) \(addresses.contains(.v4Loopback))")
                    case .failure(let error): list.append("failed \(error.host)")
                    }
                }
                done.signal()
            }
        }
        for _ in 0..<3 { done.wait() }
        let all = answers.withLock { $0.sorted() }
        #expect(all == ["127.0.0.1 true", "failed no-such-host.invalid", "localhost true"])
    }

    @Test("a name that takes long to resolve holds up no other, and is looked up once for all who ask meanwhile")
    func slowName() throws {
        let (release, answered) = (Waiter(), Waiter())
        let looked = Mutex(0)
        let resolver = Resolver { host throws(ResolutionError) in
            if host == "slow" {
                looked.withLock { $0 += 1 }
                release.wait()
            }
            return [.v4Loopback]
        }
        let log = Mutex<[String]>([])
        for host in ["slow", "quick", "slow", "another", "127.0.0.1"] {
            resolver.resolve(host) { _ in
                log.withLock { $0.append(host) }
                answered.signal()
            }
        }
        for _ in 0..<3 { answered.wait() }
        #expect(log.withLock { $0.sorted() } == ["127.0.0.1", "another", "quick"])
        release.signal()
        for _ in 0..<2 { answered.wait() }
        #expect(log.withLock { $0.suffix(2) } == ["slow", "slow"])
        #expect(looked.withLock { $0 } == 1)
    }
}

@Suite("The timer wheel")
struct TimerWheelTests {
    @Test("fires everything once, never early, within a tick of the deadline as long as it is within reach")
    func randomDeadlines() {
        let seed = SystemClock.random64()
        var random = SplitMix64(seed: seed)
        var wheel = TimerWheel(now: MonotonicTime(nanoseconds: 12_345_678_901))
        var now = MonotonicTime(nanoseconds: 12_345_678_901)
        var pending: [UInt64: (deadline: MonotonicTime, tick: Int64)] = [:]
        var next: UInt64 = 0
        var faults = 0
        for _ in 0..<5_000 {
            let span = TimeSpan(nanoseconds: Int64.random(in: 0...9_000_000_000, using: &random))
            next += 1
            pending[next] = (now + span, wheel.insert(next, deadline: now + span))
            now = now + TimeSpan(nanoseconds: Int64.random(in: 0...50_000_000, using: &random))
            if let due = wheel.next, due <= now, pending.isEmpty { faults += 1 }
            var again: [UInt64] = []
            wheel.advance(to: now) { entry in
                guard let (deadline, tick) = pending[entry.cookie], tick == entry.tick else {
                    faults += 1
                    return
                }
                if deadline > now { again.append(entry.cookie) } else { pending[entry.cookie] = nil }
            }
            for cookie in again {
                guard let deadline = pending[cookie]?.deadline else { continue }
                pending[cookie]?.tick = wheel.insert(cookie, deadline: deadline)
            }
            for (_, entry) in pending where entry.deadline + TimerWheel.tick + TimerWheel.tick < now { faults += 1 }
        }
        #expect(faults == 0, "seed \(seed)")
    }
}
