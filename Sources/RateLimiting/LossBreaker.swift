// When Redis is worth waiting for.

package import Primitives

/// Whether requests may wait for Redis. Every question has its own deadline; this keeps a dead or slow server from
/// costing each request that deadline.
package struct LossBreaker: Sendable {
    package enum State: Equatable, Sendable {
        /// The first connection is being made. Until then requests wait for it; nothing is sent yet.
        case connecting(until: MonotonicTime)
        /// No connection that has logged in: nobody waits.
        case disconnected
        /// Questions are asked; `lossesInARow` of the last ones were not answered in time.
        case asking(lossesInARow: Int)
        /// Connected, but too many questions went unanswered or were refused: nobody waits until a probe is answered.
        case suspended
    }

    package private(set) var state = State.disconnected

    /// One lost question may be chance; three in a row are not.
    package static let lossesMax = 3
    /// How often a suspended server is asked whether it is back: often enough to use it again well within a second.
    package static let probePause = TimeSpan.milliseconds(100)
    /// How often an idle connection is asked for the time, so that the clock's bounds stay narrow and a dead server is
    /// noticed before a request has to find out.
    package static let idlePause = TimeSpan.seconds(1)

    /// How often a server that is asked is looked at for whether it still has its data: until then, what it has forgotten
    /// can be admitted once more.
    package static let markerPause = TimeSpan.milliseconds(100)

    package init() {}

    package var mayAsk: Bool {
        switch state {
        case .asking: true
        case .connecting, .disconnected, .suspended: false
        }
    }

    package var isConnecting: Bool {
        switch state {
        case .connecting: true
        case .asking, .disconnected, .suspended: false
        }
    }

    /// Whether a request may wait for an answer, or for a server that can be asked.
    package var mayWait: Bool {
        switch state {
        case .connecting, .asking: true
        case .disconnected, .suspended: false
        }
    }

    /// Nothing is known of the server yet, and it is being connected to.
    package mutating func connecting(until: MonotonicTime) { state = .connecting(until: until) }

    /// Nobody waits longer for that connection.
    package mutating func waited(until now: MonotonicTime) {
        if case .connecting(let until) = state, until <= now { state = .disconnected }
    }

    /// - Parameter isInTime: whether the server has said what time it is within the time that a request waits. A server that
    ///   hung when it was connected to has not, and its clock is known too vaguely to score by.
    package mutating func connected(isInTime: Bool = true) {
        state = isInTime ? .asking(lossesInARow: 0) : .suspended
    }
    package mutating func disconnected() { state = .disconnected }

    /// A question was answered in time.
    package mutating func answered() {
        if mayAsk { state = .asking(lossesInARow: 0) }
    }

    /// A question was not answered in time.
    package mutating func timedOut() {
        guard case .asking(let losses) = state else { return }
        state = losses + 1 >= Self.lossesMax ? .suspended : .asking(lossesInARow: losses + 1)
    }

    /// The server said that it cannot serve (`LOADING`, `READONLY`, `OOM`, …): the next question would fare no better.
    package mutating func refused() {
        if mayAsk { state = .suspended }
    }

    /// A probe was answered. One that took longer than a request would wait proves nothing.
    package mutating func probeAnswered(inTime: Bool) {
        guard inTime, state == .suspended else { return }
        state = .asking(lossesInARow: 0)
    }
}
