package import LinuxIO
package import Primitives

/// Who takes the connections that a listener accepts.
package protocol ListenerHandler: AnyObject {
    /// Asked before each connection is taken: whether there is a place for it, which is taken then. Otherwise all wait
    /// in the kernel's queue for a moment. `certain` says that somebody waits, for whom it is worth making room.
    func takePlace(_ listener: Listener, certain: Bool) -> Bool
    /// No connection came for the place.
    func returnPlace(_ listener: Listener)
    /// Owns the descriptor from here on.
    func accepted(_ connection: consuming Accepted, by listener: Listener)
    /// Accepting has paused because descriptors or memory ran out; it goes on by itself.
    func acceptPaused(_ listener: Listener, _ error: SystemError)
}

/// Who counts no connections takes all.
extension ListenerHandler {
    package func takePlace(_ listener: Listener, certain: Bool) -> Bool { true }
    package func returnPlace(_ listener: Listener) {}
}

/// A listening socket on a loop.
package final class Listener {
    package let socket: ListeningSocket
    private let loop: Loop
    private var handler: (any ListenerHandler)?
    private var resume: LoopTimer?
    private var watching = false
    private var ending: LoopTimer?
    var slot = 0
    var generation: UInt32 = 0

    /// Connections taken in one turn: enough for a burst, few enough to leave time for those that are open.
    private static let acceptsPerTurn = 64
    /// How long accepting rests when descriptors have run out: some are freed meanwhile, and nothing spins.
    private static let pause = TimeSpan.milliseconds(50)
    /// The answer to the last packet of ours comes back within this time, wherever the client is but on a bad line.
    private static let handshakeTime = TimeSpan.milliseconds(200)
    /// So often those are looked for who wait for a place: two seconds in all.
    private static let looksMax = 10

    init(_ socket: ListeningSocket, loop: Loop, handler: any ListenerHandler) {
        self.socket = socket
        self.loop = loop
        self.handler = handler
    }

    var cookie: UInt64 { UInt64(generation) << 32 | UInt64(slot) }

    func watch() throws(SystemError) {
        guard !watching else { return }
        try loop.watch(socket, cookie: cookie)
        watching = true
    }

    package func acceptReady() {
        for index in 0..<Self.acceptsPerTurn {
            // Watched level-triggered: the event tells of one connection at least, and comes again for more.
            guard acceptNext(certain: index == 0) else { return }
        }
    }

    private func acceptNext(certain: Bool) -> Bool {
        guard watching, let handler else { return false }
        guard handler.takePlace(self, certain: certain) else {
            if certain { suspend() }
            return false
        }
        do throws(SystemError) {
            guard let connection = try socket.accept() else {
                handler.returnPlace(self)
                return false
            }
            handler.accepted(connection, by: self)
            return true
        } catch {
            handler.returnPlace(self)
            suspend()
            handler.acceptPaused(self, error)
            return false
        }
    }

    /// Takes the connections that wait, which were promised an answer, and refuses all that come later.
    ///
    /// Closing a listening socket resets what is in its queue, and what is on its way into it. So the kernel drops the
    /// first packets of new connections from now on, whose clients repeat it after a second and are refused then; those
    /// whose handshake has begun get the time for it.
    package func drain(then done: (() -> Void)? = nil) {
        let holds = socket.holdNewcomers()
        takeWaiting()
        guard holds else { return end(done) }
        let timer = LoopTimer(loop) { [weak self] in self?.lookAgain(1, done) }
        ending = timer
        timer.schedule(after: Self.handshakeTime)
    }

    /// Leaves what is new to another process. That may listen on this very socket, or at the same address on one of its
    /// own: then what came here would wait for ever, if this process kept it.
    ///
    /// - Parameter takingWaiting: whether who waits now is served here all the same, in case no other process does.
    package func leave(takingWaiting: Bool) {
        if takingWaiting { takeWaiting() }
        close()
        socket.letGo()
    }

    private func takeWaiting() {
        for _ in 0..<ListeningSocket.queueMax {
            guard acceptNext(certain: false) else { break }
        }
    }

    private func lookAgain(_ look: Int, _ done: (() -> Void)?) {
        takeWaiting()
        if look < Self.looksMax, socket.hasWaiting {
            // There was no place for all of them.
            ending?.cancel()
            let timer = LoopTimer(loop) { [weak self] in self?.lookAgain(look + 1, done) }
            ending = timer
            timer.schedule(after: Self.handshakeTime)
        } else {
            end(done)
        }
    }

    private func end(_ done: (() -> Void)?) {
        socket.stopListening()
        close()
        done?()
    }

    /// Accepts again before the pause is over, where there is one.
    package func resumeAccepting() {
        if !watching, handler != nil { goOn() }
    }

    /// Stops accepting for a moment. Waiting clients stay in the kernel's queue.
    private func suspend() {
        guard watching else { return }
        watching = false
        loop.unwatch(socket)
        let timer = resume ?? LoopTimer(loop) { [weak self] in self?.goOn() }
        resume = timer
        timer.schedule(after: Self.pause)
    }

    /// Accepts again; where the system refuses even that, the pause goes on.
    private func goOn() {
        do throws(SystemError) {
            try watch()
        } catch {
            resume?.schedule(after: Self.pause)
        }
    }

    /// Stops accepting for good. The socket itself closes when its last owner lets go of it.
    package func close() {
        if watching { loop.unwatch(socket) }
        watching = false
        handler = nil
        resume?.cancel()
        resume = nil
        ending?.cancel()
        ending = nil
        loop.release(self)
    }
}

/// A timer for what happens seldom; streams have their own deadlines.
package final class LoopTimer {
    private let loop: Loop
    private let body: () -> Void
    private var deadline = MonotonicTime.distantFuture
    private var scheduledTick: Int64 = .max
    private var cookie: UInt64?

    package init(_ loop: Loop, _ body: @escaping () -> Void) {
        self.loop = loop
        self.body = body
    }

    package func schedule(after span: TimeSpan) { schedule(at: loop.now + span) }

    package func schedule(at time: MonotonicTime) {
        deadline = time
        let cookie = self.cookie ?? loop.adopt(self)
        self.cookie = cookie
        let tick = loop.insert(cookie, deadline: time)
        scheduledTick = tick
    }

    package func cancel() {
        deadline = .distantFuture
        if let cookie { loop.releaseTimer(cookie) }
        cookie = nil
    }

    func ticked(_ tick: Int64, now: MonotonicTime) {
        guard tick == scheduledTick, let cookie else { return }
        if deadline > now {
            scheduledTick = loop.insert(cookie, deadline: deadline)
            return
        }
        // Released before the call, so that the body may schedule it again, and an idle timer holds no slot.
        loop.releaseTimer(cookie)
        self.cookie = nil
        body()
    }
}
