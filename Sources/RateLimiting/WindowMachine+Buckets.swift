// What the answers to reservations in buckets mean for those who wait.

import Hiredis
import Identity
import Primitives
import RedisClient

extension WindowMachine {
    mutating func bucketsReplied(_ flight: WindowFlight, _ reply: Reply, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        let policy = context.policies[Int(subject.policy)]
        let buckets = context.key(of: subject).buckets
        switch buckets.interpret(
            reply, of: flight.transaction, limit: policy.limit - flight.transaction.keptFree, room: room(flight),
            aheadMax: context.aheadMax(of: subject))
        {
        case .malformed: undecided(flight, distrusting: "a reservation of another shape", at: now)
        case .failed(let reason): undecided(flight, failing: reason, at: now)
        case .decided(let decision):
            heard(flight, decision.time, at: now)
            if decision.expired.count > 0 {
                ready.append(.sweep(subject, first: decision.expired.first, count: decision.expired.count))
            }
            if decision.future.count > 0, clocks[context.windowOf[Int(subject.policy)]].isSettled(at: now) {
                let key = context.key(of: subject).text(subject)
                report(.anomaly("\(key): counts from the future: the server's clock was set back"))
                ready.append(.sweep(subject, first: decision.future.first, count: decision.future.count))
            }
            if decision.isLate {
                // It would leave the window before it has been in it for so long: it counts again, in a later bucket.
                giveBack(flight, 0, flight.transaction.count, at: now)
                context.fullWindows.forget(subject)
                decideAgain(flight, admitted: 0, at: now)
            } else {
                giveBack(flight, decision.admitted, flight.transaction.count - decision.admitted, at: now)
                remember(flight, decision, policy, at: now)
                settle(flight, admitted: decision.admitted, count: decision.taken, time: decision.time, at: now)
            }
            landed(subject, at: now)
        }
    }

    private mutating func remember(
        _ flight: WindowFlight, _ decision: BucketDecision, _ policy: Policy, at now: MonotonicTime
    ) {
        let subject = flight.transaction.subject
        let clock = clocks[context.windowOf[Int(subject.policy)]]
        guard let freesAt = decision.freesAt, let changesAt = decision.changesAt else {
            if flight.isAsker { foundRoom(flight, taken: decision.admitted, at: now) }
            return
        }
        let spare = spare(flight, admitted: decision.admitted)
        context.fullWindows.remember(
            subject, changesAt: clock.moment(after: changesAt), freesAt: clock.moment(after: freesAt),
            emptyAt: now + policy.wholeWait,
            cost: UInt16(
                clamping: max(0, policy.limit - flight.transaction.keptFree - decision.taken) + spare + 1),
            roomFor: UInt16(clamping: room(flight)), pace: policy.pace, at: now)
    }

    // MARK: After a loss

    /// The counts may be lost, and others may have begun them anew: what was reserved before is taken off no more. It stays
    /// until its bucket leaves where they are not lost.
    mutating func reservationsForgotten(at now: MonotonicTime) {
        countsKnownSince = now
        takeUpReturned()
        var kept = Queue<Entries>()
        while let run = entries.popFirst() {
            if !isReservation(run) { kept.append(run) }
        }
        entries = kept
    }

    /// Whether a run gives back what was reserved in a bucket.
    func isReservation(_ run: Entries) -> Bool { !run.isCharged && context.isInBuckets(run.subject) }
}
