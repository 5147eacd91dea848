// A thread's event loop: epoll, timers, wake-up calls. It knows no HTTP and no Redis.
//
// One turn: wait → events → streams that asked to go on → timers → messages from other threads → end of turn (where
// what has gathered during the turn, such as Redis commands, leaves in one write).
// Everything on a loop belongs to its thread; other threads reach it through a `Mailbox` only.

package import LinuxIO
package import Primitives

/// Called when another thread has woken the loop: take what is in your mailbox.
package protocol WakeHandler: AnyObject {
    func woken()
}

/// Called once at the end of each turn in which it was asked for.
package protocol EndOfTurnHandler: AnyObject {
    func turnEnded()
}

package final class Loop {
    /// What an epoll cookie or a timer entry leads to. Slots are found by index, and a generation tells an event for
    /// what stood there before from one for what stands there now.
    private enum Occupant {
        case stream(Stream)
        case listener(Listener)
        case timer(LoopTimer)
        case waker
        case free
    }

    private struct Slot {
        var occupant: Occupant
        var generation: UInt32
    }

    /// The time at which this turn's events were fetched; renewed by long work through `updateTime`.
    package var now: MonotonicTime { time }
    private var time: MonotonicTime
    package let waker: Waker

    /// Counts turns. What a turn's events tell had happened before anything that is done in it.
    package var turns: UInt64 { turnCount }
    private var turnCount: UInt64 = 0
    /// Whether this turn found nothing to do but what is due.
    package private(set) var wasQuiet = false

    private let epoll: Epoll
    private var slots: [Slot] = []
    private var freeSlots: [Int] = []
    private var resuming: [Stream] = []
    private var resumingNow: [Stream] = []
    private var wheel: TimerWheel
    private var wakeHandlers: [any WakeHandler] = []
    private var turnHandlers: [any EndOfTurnHandler] = []
    private var turnHandlersNow: [any EndOfTurnHandler] = []
    private var postponed: [any EndOfTurnHandler] = []
    private var postponedUntil = MonotonicTime.distantFuture
    private var lull = TimeSpan.max
    private var stopping = false

    package init(waker: Waker) throws(SystemError) {
        self.waker = waker
        epoll = try Epoll()
        let now = SystemClock.monotonic()
        time = now
        wheel = TimerWheel(now: now)
        let cookie = occupy(.waker)
        try epoll.addLevelTriggered(waker.descriptor, cookie: cookie)
    }

    // MARK: What runs on the loop

    /// Takes over a connected socket. Its events begin with the next turn.
    package func adopt(
        _ descriptor: consuming Descriptor, handler: any StreamHandler
    ) throws(SystemError) -> Stream {
        try start(prepare(descriptor), handler)
    }

    /// The same in two steps, for an owner that keeps its stream in a constant, which must be there before the owner can be
    /// called: this, and then `start`.
    package func prepare(_ descriptor: consuming Descriptor) -> Stream {
        Stream(descriptor, loop: self, connecting: false)
    }

    package func prepare(connectingTo endpoint: Endpoint) throws(SystemError) -> Stream {
        Stream(try Socket.connect(to: endpoint), loop: self, connecting: true)
    }

    /// Starts a connection; `streamConnected` or `streamFailed` tells how it went. Set a deadline.
    package func connect(to endpoint: Endpoint, handler: any StreamHandler) throws(SystemError) -> Stream {
        try start(prepare(connectingTo: endpoint), handler)
    }

    @discardableResult
    package func start(_ stream: Stream, _ handler: any StreamHandler) throws(SystemError) -> Stream {
        stream.handler = handler
        place(occupy(.stream(stream))) {
            stream.slot = $0
            stream.generation = $1
        }
        do throws(SystemError) {
            try stream.register(with: epoll)
        } catch {
            stream.close()
            throw error
        }
        return stream
    }

    package func listen(on socket: ListeningSocket, handler: any ListenerHandler) throws(SystemError) -> Listener {
        let listener = Listener(socket, loop: self, handler: handler)
        place(occupy(.listener(listener))) {
            listener.slot = $0
            listener.generation = $1
        }
        try listener.watch()
        return listener
    }

    package func addWakeHandler(_ handler: any WakeHandler) { wakeHandlers.append(handler) }

    /// Calls it no more.
    package func removeWakeHandler(_ handler: any WakeHandler) { wakeHandlers.removeAll { $0 === handler } }

    /// Asks for `turnEnded` at the end of this turn. Ask once a turn.
    package func atEndOfTurn(_ handler: any EndOfTurnHandler) { turnHandlers.append(handler) }

    /// Asks for `turnEnded` at the end of the first turn that ends after `time`: finer than the timer wheel, for fractions
    /// of a millisecond. Whoever else has postponed until an earlier time brings this one up as well.
    ///
    /// - Parameter lull: ends the wait early where no event comes for so long. The kernel adds its timer slack, 50 µs.
    package func atEndOfTurn(_ handler: any EndOfTurnHandler, after time: MonotonicTime, orLull lull: TimeSpan = .max) {
        if !postponed.contains(where: { $0 === handler }) { postponed.append(handler) }
        postponedUntil = min(postponedUntil, time)
        self.lull = min(self.lull, lull)
    }

    /// Reads the clock anew.
    package func updateTime() { time = SystemClock.monotonic() }

    // MARK: Running

    /// Runs until `stop`.
    package func run() {
        while !stopping { turn() }
    }

    package func stop() { stopping = true }

    /// One turn. `waitMax` bounds the wait for events; for tests.
    package func turn(waitMax: TimeSpan = .max) {
        let count = epoll.wait(atMost: wait(waitMax))
        time = SystemClock.monotonic()
        turnCount &+= 1
        wasQuiet = count == 0 && resuming.isEmpty
        var woken = false
        for index in 0..<count {
            let (cookie, events) = epoll.event(index)
            switch occupant(cookie) {
            case .stream(let stream): stream.handle(events)
            case .listener(let listener): listener.acceptReady()
            case .waker: woken = true
            case .timer, .free: break
            }
        }
        if !resuming.isEmpty {
            swap(&resuming, &resumingNow)
            for stream in resumingNow { stream.resumed() }
            resumingNow.removeAll(keepingCapacity: true)
        }
        runTimers()
        if woken {
            waker.clear()
            for handler in wakeHandlers { handler.woken() }
        }
        takeUpPostponed()
        // A handler may ask again, for what its own work gave rise to.
        while !turnHandlers.isEmpty {
            swap(&turnHandlers, &turnHandlersNow)
            for handler in turnHandlersNow { handler.turnEnded() }
            turnHandlersNow.removeAll(keepingCapacity: true)
        }
    }

    private func wait(_ waitMax: TimeSpan) -> TimeSpan? {
        if !resuming.isEmpty { return .zero }
        var wait = min(waitMax, lull)
        let next = min(wheel.next ?? .distantFuture, postponedUntil)
        if next < .distantFuture { wait = min(wait, max(.zero, next - SystemClock.monotonic())) }
        return wait == .max ? nil : wait
    }

    private func takeUpPostponed() {
        guard postponedUntil <= time || (lull < .max && wasQuiet) else { return }
        postponedUntil = .distantFuture
        lull = .max
        turnHandlers.append(contentsOf: postponed)
        postponed.removeAll(keepingCapacity: true)
    }

    private func runTimers() {
        var due: [TimerWheel.Entry] = []
        wheel.advance(to: now) { due.append($0) }
        for entry in due {
            switch occupant(entry.cookie) {
            case .stream(let stream): stream.deadlineTicked(entry.tick, now: now)
            case .timer(let timer): timer.ticked(entry.tick, now: now)
            case .listener, .waker, .free: break
            }
        }
    }

    // MARK: Slots

    private func occupy(_ occupant: Occupant) -> UInt64 {
        if let index = freeSlots.popLast() {
            slots[index].occupant = occupant
            return UInt64(slots[index].generation) << 32 | UInt64(index)
        }
        slots.append(Slot(occupant: occupant, generation: 1))
        return 1 << 32 | UInt64(slots.count - 1)
    }

    private func place(_ cookie: UInt64, _ assign: (Int, UInt32) -> Void) {
        assign(Int(cookie & 0xffff_ffff), UInt32(cookie >> 32))
    }

    @inline(__always)
    private func occupant(_ cookie: UInt64) -> Occupant {
        let index = Int(cookie & 0xffff_ffff)
        guard index < slots.count, slots[index].generation == UInt32(cookie >> 32) else { return .free }
        return slots[index].occupant
    }

    private func vacate(_ cookie: UInt64) {
        let index = Int(cookie & 0xffff_ffff)
        guard index < slots.count, slots[index].generation == UInt32(cookie >> 32) else { return }
        slots[index].occupant = .free
        slots[index].generation &+= 1
        freeSlots.append(index)
    }

    func release(_ stream: Stream) { vacate(stream.cookie) }
    func release(_ listener: Listener) { vacate(listener.cookie) }
    func releaseTimer(_ cookie: UInt64) { vacate(cookie) }
    func adopt(_ timer: LoopTimer) -> UInt64 { occupy(.timer(timer)) }

    // MARK: For streams, listeners and timers

    func enqueue(_ stream: Stream) { resuming.append(stream) }

    func schedule(_ stream: Stream, _ deadline: MonotonicTime) {
        // The wheel brings the stream up at `scheduledTick`; a later deadline is noticed then.
        guard stream.state != .closed, deadline.nanoseconds / TimerWheel.tick.nanoseconds < stream.scheduledTick else {
            return
        }
        stream.scheduledTick = wheel.insert(stream.cookie, deadline: deadline)
    }

    func insert(_ cookie: UInt64, deadline: MonotonicTime) -> Int64 { wheel.insert(cookie, deadline: deadline) }

    func watch(_ socket: ListeningSocket, cookie: UInt64) throws(SystemError) {
        try epoll.addLevelTriggered(socket.descriptor, cookie: cookie)
    }

    func unwatch(_ socket: ListeningSocket) { epoll.remove(socket.descriptor) }
}
