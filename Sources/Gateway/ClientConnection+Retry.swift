// When a request goes to another backend after a failure.

import Balancing
import Configuration
import EventLoop
import HTTP1
import Primitives
import Synchronization

extension ClientConnection {
    /// Whether a request whose connection failed may be sent again at all.
    ///
    /// RFC 9110 §9.2.2: what was sent may have been acted on, so only idempotent requests are sent twice, and only where
    /// all that was sent is still here. A backend that is silent is not spared by asking another one the same.
    func mayBeSentAgain(after fault: BackendFault, nothingSent: Bool) -> Bool {
        guard replayable, nothingSent || method.isIdempotent else { return false }
        switch fault {
        case .refused, .connectTimeout, .reset: return true
        case .responseTimeout: return nothingSent
        case .malformed, .serverError: return false
        }
    }

    /// How often it was sent again.
    var resent: Int { max(0, tried.nonzeroBitCount - 1) + (staleRetried ? 1 : 0) }

    /// Whether a pooled connection that proves dead would cost nothing but another try.
    var mayFindStale: Bool { method.isIdempotent && tried & (tried &- 1) == 0 }

    /// The backend that gets the request next; `nil` where it has been tried often enough.
    func nextBackend(after fault: BackendFault) -> Int? {
        guard let lane else { return nil }
        let retries = lane.service.settings.retries
        let now = loop.now
        // A refusal comes at once and has cost the backend nothing: it leads on to the next one as long as there is one
        // and the budget lasts. Everything else is tried as often as configured, so that times of waiting do not add up.
        let isCheap = fault == .refused
        guard retries.attempts > 0, isCheap || attemptsLeft > 0, now - startedAt < retries.within,
            let next = lane.balancer.next(hash: hash, tried: tried)
        else { return nil }
        guard lane.retryBudget.take(at: now) else {
            worker.retryDenied(lane.service)
            return nil
        }
        lane.service.retries.wrappingAdd(1, ordering: .relaxed)
        if !isCheap { attemptsLeft -= 1 }
        return next
    }

    /// Sends the request once more.
    func again(_ index: Int, fresh: Bool) {
        guard let lane else { return }
        outboundSent = 0
        lane.traffic.retried(worker: worker.index)
        connect(lane, index, fresh: fresh)
        flushOutbound()
        // The rest of the body may be here already, and no event announces it again.
        if phase == .exchanging { stream.wakeSoon() }
    }
}
