// When a worker that has just started begins to take connections.

import EventLoop
import LinuxIO
import Primitives
import RateLimiting

/// A worker's sockets until its limiter is there.
final class Beginning {
    let sockets: [ListeningSocket]
    let until: MonotonicTime
    let done: (SystemError?) -> Void
    var timer: LoopTimer?

    init(_ sockets: [ListeningSocket], until: MonotonicTime, done: @escaping (SystemError?) -> Void) {
        self.sockets = sockets
        self.until = until
        self.done = done
    }
}

extension Worker {
    /// Listens as soon as the limiter may ask Redis: a node that has just started has admitted nobody yet, so by the loss
    /// rule each start would give every client its limit once more.
    ///
    /// - Parameter done: called when it listens, or cannot.
    func begin(on sockets: [ListeningSocket], done: @escaping (SystemError?) -> Void) {
        let beginning = Beginning(sockets, until: loop.now + Self.limiterPatience, done: done)
        beginning.timer = LoopTimer(loop) { [weak self] in self?.lookAtLimiter() }
        self.beginning = beginning
        lookAtLimiter()
    }

    private func lookAtLimiter() {
        guard let beginning else { return }
        if limiter?.isAsking ?? true || loop.now >= beginning.until {
            listenNow()
        } else {
            beginning.timer?.schedule(after: .milliseconds(4))
        }
    }

    /// Waits no longer.
    func listenNow() {
        guard let beginning else { return }
        self.beginning = nil
        do throws(SystemError) {
            try listen(on: beginning.sockets)
            beginning.done(nil)
        } catch {
            beginning.done(error)
        }
    }
}
