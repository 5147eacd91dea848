// How slowly a client may send or read. A timeout that every byte renews is no bound: one byte in 29 s holds a connection,
// a backend's connection and its memory for days.
//
// Both rules are values. They look at the bytes when a deadline passes or is moved anyway, so that they cost no request a
// system call or a timer of its own.

import Primitives

/// The floor under a client's pace.
struct PaceFloor: Sendable {
    var bytesPerSecond: Int
    /// How long it may be slower, in all that its pace has not made up for: a lost cell, a lift.
    var grace: TimeSpan

    init?(_ rate: ByteCount?, grace: TimeSpan) {
        guard let rate, rate.bytes > 0 else { return nil }
        bytesPerSecond = rate.bytes
        self.grace = grace
    }

    /// How long so many bytes may take.
    func time(for bytes: Int) -> TimeSpan {
        TimeSpan(nanoseconds: saturatingMultiply(Int64(bytes), 1_000_000_000) / Int64(bytesPerSecond))
    }
}

/// The pace of an upload. Only the client's own turns count: while a backend takes nothing, the client may not send.
struct UploadPace: Sendable {
    /// What is left of the grace. Pace makes up for slowness, and never for more than the grace: what was sent fast
    /// before buys no silence.
    private var left: TimeSpan
    private var since: MonotonicTime?
    private var bytes = 0

    init(_ floor: PaceFloor?) { left = floor?.grace ?? .zero }

    /// It is the client's turn, and `total` bytes have come. Returns when it has been too slow unless more come.
    mutating func bound(total: Int, at now: MonotonicTime, _ floor: PaceFloor) -> MonotonicTime {
        reckon(total, now, floor)
        since = now
        return now + max(.zero, left)
    }

    /// It is the backend's turn.
    mutating func pause(total: Int, at now: MonotonicTime, _ floor: PaceFloor) {
        reckon(total, now, floor)
        since = nil
    }

    private mutating func reckon(_ total: Int, _ now: MonotonicTime, _ floor: PaceFloor) {
        if let since { left = min(floor.grace, left - (now - since) + floor.time(for: total - bytes)) }
        bytes = total
    }
}

/// Whether a client reads what it is sent. `unread` is what the kernel and this node still hold for it: what the kernel
/// takes from us says little, since it takes nothing until a third of its buffer is free.
struct ReadingPace: Sendable {
    enum Verdict: Hashable, Sendable {
        case look(at: MonotonicTime)
        case tooSlow
    }

    /// The longest time without a byte.
    let silence: TimeSpan?
    let floor: PaceFloor?
    private var left = TimeSpan.zero
    private var before: Int?
    private var checked = MonotonicTime(nanoseconds: 0)
    private var progressed = MonotonicTime(nanoseconds: 0)

    init(silence: TimeSpan?, floor: PaceFloor?) {
        self.silence = silence
        self.floor = floor
    }

    /// Four looks in the shorter of the two times: their coarseness is a quarter of it.
    private var interval: TimeSpan? {
        switch (silence, floor) {
        case (.some(let silence), .some(let floor)): min(silence, floor.grace) / 4
        case (.some(let silence), .none): silence / 4
        case (.none, .some(let floor)): floor.grace / 4
        case (.none, .none): nil
        }
    }

    private func next(_ now: MonotonicTime) -> MonotonicTime { interval.map { now + $0 } ?? .distantFuture }

    /// Something is left for the client to read. Returns when to look.
    mutating func begin(at now: MonotonicTime) -> MonotonicTime {
        left = floor?.grace ?? .zero
        before = nil
        checked = now
        progressed = now
        return next(now)
    }

    mutating func look(unread: Int, at now: MonotonicTime) -> Verdict {
        if let before, unread != before { progressed = now }
        if let before, let floor {
            left = min(floor.grace, left - (now - checked) + floor.time(for: max(0, before - unread)))
            if left <= .zero { return .tooSlow }
        }
        before = unread
        checked = now
        if let silence, now - progressed >= silence { return .tooSlow }
        return .look(at: next(now))
    }
}
