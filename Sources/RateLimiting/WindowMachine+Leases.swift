// Leases between the decision that gave them and their end.

import Hiredis
import Identity
package import Primitives

extension WindowMachine {
    /// A request has ended: its entry is taken out, and kept on the list until that is acknowledged.
    package mutating func release(_ lease: LeaseKeeper.Lease, at now: MonotonicTime) {
        // Others on this node need not wait until they may ask again.
        context.fullWindows.forget(lease.subject)
        putRight(Entries(subject: lease.subject, first: lease.name, count: 1, at: now, isCharged: false))
    }

    /// A request runs that another limiter has let in: it counts here too, whatever the limit. Returns its lease.
    mutating func adopt(_ subject: SubjectKey, at now: MonotonicTime) -> Int32 {
        context.held.add(subject)
        var lease: Int32 = -1
        charge(subject, 1, lease: &lease, at: now)
        return lease
    }

    /// The request goes on: so must its lease. While nobody is asked that is only noted.
    package mutating func renew(_ place: Int32, _ lease: LeaseKeeper.Lease, at now: MonotonicTime) {
        guard breaker.mayAsk else {
            isBehind = true
            return
        }
        putRight(
            Entries(subject: lease.subject, first: lease.name, count: 1, at: now, isCharged: true, renewal: place))
    }

    /// Whether leases were not renewed that can be now; once.
    package mutating func takeIsBehind() -> Bool {
        guard isBehind, breaker.mayAsk else { return false }
        isBehind = false
        return true
    }

    /// What became of a renewal. A lease that is not there any more was lost with Redis's data, or was not renewed in
    /// time: the request goes on nevertheless, so it has to count again.
    mutating func renewed(_ run: Entries, _ reply: Reply, at now: MonotonicTime) {
        guard reply.elementCount(0) == 2, reply.integer(1) == 0, leases.holds(run.renewal, run.first) else { return }
        putRight(Entries(subject: run.subject, first: run.first, count: 1, at: now, isCharged: true))
    }
}
