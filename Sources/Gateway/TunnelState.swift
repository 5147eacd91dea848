// What a tunnel does with the bytes and the ends of its two sides, as a value without I/O.
//
// Each side is a source for the other one. While a side does not take what waits for it, its source is not read: the
// bytes stay in the kernel, which slows the peer down, and the tunnel holds one read at the most in each direction. An
// end of sending is passed on behind the last byte, and the other direction goes on. A tunnel that must end tells both
// sides so and reads on for a moment: closing over unread bytes sends a reset, which destroys what the peer has not
// read yet, such as the frame that says why (RFC 9112 §9.6).

package import Primitives

package enum TunnelSide: Sendable, CaseIterable {
    case client, backend

    package var other: TunnelSide { self == .client ? .backend : .client }
}

/// What is to be done now, in this order.
package struct TunnelActions: OptionSet, Sendable {
    package let rawValue: UInt8
    package init(rawValue: UInt8) { self.rawValue = rawValue }

    /// Tell the client that nothing more comes.
    package static let endClient = TunnelActions(rawValue: 1)
    package static let endBackend = TunnelActions(rawValue: 2)
    /// Close both connections.
    package static let finish = TunnelActions(rawValue: 4)
    /// Tell the client in its own protocol that the gateway goes away.
    package static let sayGoodbye = TunnelActions(rawValue: 8)
}

package struct TunnelTimes: Sendable {
    /// The longest silence of both sides; `nil`: no limit.
    package var idle: TimeSpan?
    /// The same once a side has ended, and while a side takes nothing of what waits for it.
    package var strained: TimeSpan?

    package init(idle: TimeSpan?, strained: TimeSpan?) {
        self.idle = idle
        self.strained = strained
    }
}

package struct TunnelState: Sendable {
    private struct End {
        /// Nothing more is read from it: it has ended its sending, or broken.
        var hasEnded = false
        /// It takes no bytes any more.
        var isBroken = false
        /// It knows that nothing more comes.
        var isTold = false
        /// Bytes that wait until its kernel takes them.
        var pending = 0
    }

    /// What to do with what a side sends.
    package enum Reading: Sendable {
        /// Leave it in the kernel.
        case nothing
        case forward
        case discard
    }

    /// How long before its end a tunnel says goodbye, where it can: peers answer that and part in peace.
    package static let goodbyeTime = TimeSpan.seconds(2)

    private var client = End()
    private var backend = End()
    private let times: TunnelTimes
    private var isClosing = false
    private var toldAt: MonotonicTime?
    private var lastActivity: MonotonicTime
    /// Bytes that waited at `lastActivity`: fewer of them are activity too.
    private var stalled = 0
    private var leavingAt = MonotonicTime.distantFuture
    private var goodbyeAt = MonotonicTime.distantFuture
    private var hasSaidGoodbye = false

    package init(_ times: TunnelTimes, at now: MonotonicTime) {
        self.times = times
        lastActivity = now
    }

    private subscript(side: TunnelSide) -> End {
        get { side == .client ? client : backend }
        set {
            switch side {
            case .client: client = newValue
            case .backend: backend = newValue
            }
        }
    }

    package func reading(from side: TunnelSide) -> Reading {
        let sink = self[side.other]
        if self[side].hasEnded { return .nothing }
        if isClosing || sink.isTold || sink.isBroken { return .discard }
        return sink.pending == 0 ? .forward : .nothing
    }

    // MARK: Events

    /// Bytes of `side` were handed on; `pending` of them wait.
    package mutating func moved(from side: TunnelSide, pending: Int, at now: MonotonicTime) {
        self[side.other].pending = pending
        active(now)
    }

    /// What waited for `side` has left.
    package mutating func drained(_ side: TunnelSide, at now: MonotonicTime) -> TunnelActions {
        self[side].pending = 0
        active(now)
        return settle(now)
    }

    /// `side` has ended its sending, behind its last byte.
    package mutating func ended(_ side: TunnelSide, at now: MonotonicTime) -> TunnelActions {
        self[side].hasEnded = true
        active(now)
        return settle(now)
    }

    /// Nothing can be read from `side` any more, nor sent to it.
    package mutating func broke(_ side: TunnelSide, at now: MonotonicTime) -> TunnelActions {
        self[side].hasEnded = true
        return refused(side, at: now)
    }

    /// `side` takes no more bytes. What it sent before may still be on its way.
    package mutating func refused(_ side: TunnelSide, at now: MonotonicTime) -> TunnelActions {
        self[side].isBroken = true
        self[side].pending = 0
        return settle(now)
    }

    private mutating func active(_ now: MonotonicTime) {
        lastActivity = now
        stalled = client.pending + backend.pending
    }

    // MARK: Ending

    package var isLeaving: Bool { isClosing || leavingAt < .distantFuture }

    /// The tunnel is to end by then; an earlier time that was set before stands.
    package mutating func leave(by time: MonotonicTime) { leavingAt = min(leavingAt, time) }

    /// The client is to be told in its own protocol some time before that.
    package mutating func sayGoodbye(at now: MonotonicTime) {
        guard leavingAt < .distantFuture, !hasSaidGoodbye else { return }
        goodbyeAt = leavingAt - min(Self.goodbyeTime, max(.zero, leavingAt - now) / 2)
    }

    /// It need not end after all, unless the client has been told already.
    package mutating func stay() {
        guard !hasSaidGoodbye else { return }
        leavingAt = .distantFuture
        goodbyeAt = .distantFuture
    }

    /// When `deadlinePassed` is due.
    package var deadline: MonotonicTime {
        guard isClosing else { return min(silenceEnds, leavingAt, goodbyeAt) }
        if let toldAt { return toldAt + DataPathLimits.tunnelLingerTime }
        return min(silenceEnds, leavingAt + DataPathLimits.tunnelLingerTime)
    }

    private var silenceEnds: MonotonicTime {
        let isStrained =
            isClosing || client.pending > 0 || backend.pending > 0 || client.hasEnded || backend.hasEnded
            || client.isBroken || backend.isBroken
        var span = times.idle
        if isStrained, let strained = times.strained { span = min(strained, times.idle ?? .max) }
        return span.map { lastActivity + $0 } ?? .distantFuture
    }

    /// - Parameters:
    ///   - clientPending: bytes that wait for the client now.
    package mutating func deadlinePassed(
        clientPending: Int, backendPending: Int, at now: MonotonicTime
    ) -> TunnelActions {
        if clientPending + backendPending < stalled {
            // Slow is not silent: as long as something moves it may.
            client.pending = clientPending
            backend.pending = backendPending
            active(now)
        }
        guard now >= deadline else { return [] }
        if !isClosing, now >= goodbyeAt {
            goodbyeAt = .distantFuture
            hasSaidGoodbye = true
            // Who was told the end already would not read it.
            if !client.isTold, !client.isBroken { return .sayGoodbye }
            guard now >= deadline else { return [] }
        }
        // Told, or with bytes that nobody has taken for so long: there is nothing to wait for.
        if isClosing || now < leavingAt && client.pending + backend.pending > 0 { return .finish }
        isClosing = true
        return settle(now)
    }

    /// Passes ends on where all that came before them is gone.
    private mutating func settle(_ now: MonotonicTime) -> TunnelActions {
        // A side that neither sends nor takes leaves nothing to do for the other.
        if client.hasEnded && client.isBroken || backend.hasEnded && backend.isBroken { isClosing = true }
        var actions: TunnelActions = []
        if tell(.client) { actions.insert(.endClient) }
        if tell(.backend) { actions.insert(.endBackend) }
        guard client.isTold, backend.isTold else { return actions }
        if toldAt == nil { toldAt = now }
        isClosing = true
        if client.hasEnded || client.isBroken, backend.hasEnded || backend.isBroken { actions.insert(.finish) }
        return actions
    }

    /// Returns whether the side is to be told now that nothing more comes.
    private mutating func tell(_ side: TunnelSide) -> Bool {
        let end = self[side]
        guard !end.isTold, end.pending == 0, isClosing || self[side.other].hasEnded else { return false }
        self[side].isTold = true
        return !end.isBroken
    }
}
