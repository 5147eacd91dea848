// What the answers to transactions mean for those who wait.

package import Hiredis
import Identity
package import Primitives
import RedisClient

extension WindowMachine {
    /// The answer to a transmission.
    ///
    /// - Parameter now: read after the answer was received.
    package mutating func replied(_ token: UInt64, _ reply: Reply, at now: MonotonicTime) {
        guard let flight = flights.remove(Int(clamping: token)) else { return }
        lastHeardAt = now
        switch flight {
        case .window(let flight): windowReplied(flight, reply, at: now)
        case .confirmation(let flight, let admitted, let time):
            confirmationReplied(flight, admitted: admitted, time: time, reply, at: now)
        case .entries(let run):
            entriesUnderWay -= 1
            if run.renewal < 0, run.isCharged, let refusal = reply.firstError {
                keyFailed(run.subject, .notCharged, refusal, at: now)
            } else if run.renewal >= 0 {
                renewed(run, reply, at: now)
            } else if run.isCharged {
                remember(run, at: now)
            }
        case .carrying(let subject):
            if let refusal = reply.firstError {
                keyFailed(subject, .notCarried, refusal, at: now)
            } else {
                carrying.copied(subject, entries: reply.integer(1) ?? 0, at: now)
            }
        case .cleanup, .sweep: break
        case .probe(let sentAt): probeReplied(sentAt: sentAt, reply, at: now)
        }
    }

    // MARK: Windows

    private mutating func windowReplied(_ flight: WindowFlight, _ reply: Reply, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        if context.isInBuckets(subject) {
            bucketsReplied(flight, reply, at: now)
            return
        }
        let tellsRemaining = context.commandCount > WindowTransaction.commandCount
        switch flight.transaction.interpret(
            reply, limit: context.policy(of: subject).limit, aheadMax: context.aheadMax(of: subject),
            tellsRemaining: tellsRemaining)
        {
        case .malformed: undecided(flight, distrusting: "a decision of another shape", at: now)
        case .failed(let reason): undecided(flight, failing: reason, at: now)
        case .decided(let decision):
            context.noteRoundTrip(now - flight.transaction.sentAt, worker: worker)
            heard(flight, decision.time, at: now)
            if let anomaly = decision.anomaly { handle(anomaly, subject, decision, at: now) }
            remember(flight, decision, at: now)
            switch decision.timing {
            case .early: decideAgain(flight, admitted: decision.kept, at: now)
            case .late where decision.admitted > 0: confirm(flight, decision, at: now)
            case .late, .withinBounds:
                settle(
                    flight, admitted: decision.admitted, kept: decision.kept,
                    count: tellsRemaining ? decision.count : nil, time: decision.time, at: now)
            }
            landed(subject, at: now)
        }
    }

    /// The answer cannot be believed.
    mutating func undecided(_ flight: WindowFlight, distrusting reason: String, at now: MonotonicTime) {
        distrust(reason)
        settleByLossRule(flight, mayHaveEntries: true, at: now)
        landed(flight.transaction.subject, at: now)
    }

    /// A command of the transaction has failed.
    mutating func undecided(_ flight: WindowFlight, failing reason: String, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        failed(subject, reason, at: now)
        settleByLossRule(flight, mayHaveEntries: true, at: now)
        landed(subject, at: now)
    }

    /// One of the commands of a transaction was refused when it was executed.
    private mutating func failed(_ subject: SubjectKey, _ reason: String, at now: MonotonicTime) {
        let failure = RedisFailure.refused(reason)
        switch failure.cause {
        case .wrongType, .other: keyFailed(subject, .undecided, reason, at: now)
        case .unreachable, .silent, .loading, .readOnly, .masterDown, .outOfMemory, .login, .maxClients, .denied,
            .permission, .clusterDown, .moved, .unavailable, .malformed, .untrusted:
            refused(failure)
        }
    }

    /// A transaction was executed.
    @inline(__always)
    mutating func heard(_ flight: WindowFlight, _ time: RedisTime, at now: MonotonicTime) {
        observe(ServerTimeSample(sentAt: flight.transaction.sentAt, receivedAt: now, time: time))
        if !flight.isTimedOut { breaker.answered() }
        reportRestored()
    }

    private mutating func observe(_ sample: ServerTimeSample) {
        var stepped = false
        for index in clocks.indices {
            switch clocks[index].observe(sample) {
            case .agreed: break
            case .stepped: stepped = true
            }
        }
        if stepped {
            if !isInTime(sample) { breaker.refused() }
            // Set forward by much, it has expired what it held.
            while let run = recent.popFirst() { putRight(run) }
            context.failures.countClockStep()
            report(.anomaly("the server's clock was set, or another server answers"))
        }
    }

    private mutating func handle(
        _ anomaly: WindowDecision.Anomaly, _ subject: SubjectKey, _ decision: WindowDecision, at now: MonotonicTime
    ) {
        let key = context.key(of: subject).text(subject)
        switch anomaly {
        case .namesTaken(let count):
            report(.anomaly("\(key): \(count) names were there already: another process has this one's boot value"))
        case .leftovers:
            report(.anomaly("\(key): entries left over by a broken transaction"))
            ready.append(.cleanup(subject, after: decision.time + context.aheadMax(of: subject)))
        case .entriesFromTheFuture:
            // Set back a moment ago, they may be a moment old: they stay until they have surely left the window.
            guard clocks[context.windowOf[Int(subject.policy)]].isSettled(at: now) else { return }
            report(.anomaly("\(key): entries from the future: the server's clock was set back"))
            ready.append(.cleanup(subject, after: decision.time + context.aheadMax(of: subject)))
        }
    }

    private mutating func remember(_ flight: WindowFlight, _ decision: WindowDecision, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        // What fills the window may be about to be taken out: its own entries after an early execution, or those from
        // the future.
        let isLasting = decision.timing != .early && decision.anomaly == nil
        if isLasting, let oldest = decision.fullSince {
            let policy = Int(subject.policy)
            let freesAt = clocks[context.windowOf[policy]].moment(after: oldest + context.policies[policy].window)
            if context.isLeased(subject) {
                // Who ends next frees a lease, and nobody knows when.
                let later = now + .seconds(1)
                context.fullWindows.remember(
                    subject, changesAt: now, freesAt: later, emptyAt: later, cost: 1, roomFor: 1, at: now)
                return
            }
            if !context.isPlain, flight.transaction.largest > 1 {
                rememberWeighted(flight, decision, changesAt: freesAt, at: now)
                return
            }
            let emptyAt = max(freesAt, now + context.policies[policy].window)
            context.fullWindows.remember(
                subject, freesAt: freesAt, emptyAt: emptyAt, pace: context.paces[policy], at: now)
        } else if !isLasting {
            context.fullWindows.forget(subject)
        } else if flight.isAsker {
            foundRoom(flight, taken: decision.admitted, at: now)
        }
    }

    /// Where requests differ in cost, what costs less may pass while others cannot.
    private func rememberWeighted(
        _ flight: WindowFlight, _ decision: WindowDecision, changesAt: MonotonicTime, at now: MonotonicTime
    ) {
        let subject = flight.transaction.subject
        let policy = Int(subject.policy)
        let last = decision.roomSince.map { $0 + context.policies[policy].window }
        let freesAt = last.map { clocks[context.windowOf[policy]].moment(after: $0) }
        let wholeWait = context.policies[policy].wholeWait
        context.fullWindows.remember(
            subject, changesAt: changesAt, freesAt: freesAt ?? now + wholeWait, emptyAt: now + wholeWait,
            cost: UInt16(clamping: spare(flight, admitted: decision.admitted) + 1),
            roomFor: UInt16(clamping: flight.transaction.largest), pace: context.paces[policy], at: now)
    }

    /// Entries of a request that got some of its slots, and not all: they are given back.
    func spare(_ flight: WindowFlight, admitted: Int) -> Int {
        var position = 0
        var index = flight.firstRequest
        while index >= 0, requests.contains(Int(index)) {
            let cost = Int(requests[Int(index)].cost)
            guard position + cost <= admitted else { return max(0, admitted - position) }
            position += cost
            index = requests[Int(index)].next
        }
        return 0
    }

    /// The cost of the dearest request of a transaction.
    func room(_ flight: WindowFlight) -> Int {
        guard context.policies[Int(flight.transaction.subject.policy)].costMax > 1 else { return 1 }
        var room = 1
        var index = flight.firstRequest
        while index >= 0, requests.contains(Int(index)) {
            room = max(room, Int(requests[Int(index)].cost))
            index = requests[Int(index)].next
        }
        return room
    }

    /// Answers everyone of a decided transaction: the first `admitted` are in, of each request all or none.
    ///
    /// - Parameter kept: entries that the server let in, where they are more.
    mutating func settle(
        _ flight: WindowFlight, admitted: Int, kept: Int? = nil, count: Int? = nil, time: RedisTime,
        at now: MonotonicTime
    ) {
        let kept = kept ?? admitted
        let subject = flight.transaction.subject
        var retryAfter: TimeSpan?
        var position = 0
        var recorded = 0
        var index = flight.firstRequest
        while index >= 0, let request = requests.remove(Int(index)) {
            let cost = Int(request.cost)
            // What the loss rule has let in may have a slot that is kept free: it has to be counted anyway.
            let isIn = position + cost <= (request.state == .admittedByLossRule ? kept : admitted)
            if !isIn, position < kept { giveBack(flight, position, min(cost, kept - position), at: now) }
            switch request.state {
            case .waiting:
                if request.part >= 0 {
                    if isIn {
                        let name = self.name(flight, position)
                        // Of those who were let in together, the first had more left than the last.
                        let limit = context.policy(of: subject).limit - flight.transaction.keptFree
                        let remaining = count.map { limit - $0 + kept - cost - position }
                        partAdmitted(
                            request.part, name: name, remaining: remaining.map { max(0, $0) }, time: time, at: now)
                    } else {
                        let wait = retryAfter ?? self.retryAfter(subject, cost: request.cost, at: now)
                        if context.isPlain { retryAfter = wait }
                        partRefused(request.part, retryAfter: wait, by: .window, at: now)
                    }
                    break
                }
                let verdict: Verdict
                if isIn {
                    recorded += cost
                    remember(flight, position, request.cost, at: now)
                    verdict = .admit(remaining: nil)
                } else {
                    let wait = retryAfter ?? self.retryAfter(subject, cost: request.cost, at: now)
                    retryAfter = wait
                    verdict = .refuse(retryAfter: wait)
                }
                context.count(verdict, of: subject, by: .window)
                deliver(verdict, request)
            case .admittedByLossRule:
                if isIn { remember(flight, position, request.cost, at: now) } else { charge(flight, position, request) }
            case .refusedByLossRule: if isIn { giveBack(flight, position, cost, at: now) }
            }
            index = request.next
            position += cost
        }
        if recorded > 0, let log = context.decisions {
            log.admitted(recorded, subject, by: .window, at: time)
        }
        if recorded > 0 {
            context.memory(of: subject).record(recorded, of: subject, at: now)
        }
    }

    private func retryAfter(_ subject: SubjectKey, cost: UInt16, at now: MonotonicTime) -> TimeSpan {
        let wholeWait = context.policies[Int(subject.policy)].wholeWait
        return switch context.fullWindows.peek(subject, cost: cost, wholeWait: wholeWait, at: now) {
        case .full(let retryAfter): retryAfter
        case .unknown, .mayAsk, .mayAskSoon: wholeWait
        }
    }

    // MARK: Late and early

    /// Refuses those who are out at once; the survivors of a late transaction wait until it is known that they are all
    /// still there, with the time at which they really were admitted.
    private mutating func confirm(_ flight: WindowFlight, _ decision: WindowDecision, at now: MonotonicTime) {
        var last: Int32 = -1
        var whole = 0
        var index = flight.firstRequest
        while index >= 0, whole + Int(requests[Int(index)].cost) <= decision.admitted {
            requests[Int(index)].flight = Request.confirming
            whole += Int(requests[Int(index)].cost)
            last = index
            index = requests[Int(index)].next
        }
        giveBack(flight, whole, decision.kept - whole, at: now)
        if last >= 0 {
            requests[Int(last)].next = -1
            ready.append(.confirmation(flight, admitted: whole, time: decision.time))
        }
        settleRefused(flight, index, from: whole, at: now)
    }

    private mutating func settleRefused(
        _ flight: WindowFlight, _ first: Int32, from position: Int, at now: MonotonicTime
    ) {
        var position = position
        var index = first
        while index >= 0, let request = requests.remove(Int(index)) {
            let retryAfter = self.retryAfter(request.subject, cost: request.cost, at: now)
            switch request.state {
            case .waiting where request.part >= 0:
                partRefused(request.part, retryAfter: retryAfter, by: .window, at: now)
            case .waiting:
                context.count(.refuse(retryAfter: retryAfter), of: request.subject, by: .window)
                deliver(.refuse(retryAfter: retryAfter), request)
            case .admittedByLossRule: charge(flight, position, request)
            case .refusedByLossRule: break
            }
            index = request.next
            position += Int(request.cost)
        }
    }

    private mutating func confirmationReplied(
        _ flight: WindowFlight, admitted: Int, time: RedisTime, _ reply: Reply, at now: MonotonicTime
    ) {
        guard reply.elementCount(0) == 1, reply.count == 2, reply.kind(1) == .integer, let changed = reply.integer(1)
        else {
            if let refusal = reply.firstError {
                failed(flight.transaction.subject, refusal, at: now)
            } else {
                distrust("a confirmation of another shape")
            }
            settleByLossRule(flight, mayHaveEntries: true, at: now)
            return
        }
        if changed == Int64(admitted) {
            settle(flight, admitted: admitted, time: time, at: now)
        } else {
            // Somebody has dropped them, and may have given their slots away.
            decideAgain(flight, admitted: admitted, at: now)
        }
    }

    /// The entries of a transaction cannot be relied on: they are taken out, and whoever still waits is asked for anew.
    mutating func decideAgain(_ flight: WindowFlight, admitted: Int, at now: MonotonicTime) {
        let subject = flight.transaction.subject
        var again: Int32 = -1
        var last: Int32 = -1
        var waiting = 0
        var position = 0
        var index = flight.firstRequest
        while index >= 0 {
            let request = requests[Int(index)]
            switch request.state {
            case .waiting:
                giveBack(flight, position, min(Int(request.cost), admitted - position), at: now)
                requests[Int(index)].flight = -1
                requests[Int(index)].next = -1
                if last >= 0 { requests[Int(last)].next = index } else { again = index }
                last = index
                waiting += 1
            case .admittedByLossRule:
                charge(flight, position, request)
                _ = requests.remove(Int(index))
            case .refusedByLossRule:
                giveBack(flight, position, min(Int(request.cost), admitted - position), at: now)
                _ = requests.remove(Int(index))
            }
            index = request.next
            position += Int(request.cost)
        }
        guard waiting > 0 else { return }
        guard let place = subjects.find(subject) ?? subjects.insert(subject, ActiveSubject()) else {
            answerByLossRule(again, at: now)
            return
        }
        // In front of those who came later.
        requests[Int(last)].next = subjects[place].first
        if subjects[place].first < 0 { subjects[place].last = last }
        subjects[place].first = again
        subjects[place].waiting += waiting
        if subjects[place].isHeld { heldCount += waiting }
        gather(place, subject)
    }

    // MARK: Landing

    /// A transaction of the subject is over: whoever gathered meanwhile is next.
    mutating func landed(_ subject: SubjectKey, at now: MonotonicTime) {
        guard let place = subjects.find(subject) else { return }
        subjects[place].flights -= 1
        guard subjects[place].flights == 0 else { return }
        if subjects[place].waiting > 0 {
            let isWeighted = !context.isPlain && context.policies[Int(subject.policy)].costMax > 1
            switch context.fullWindows.askOn(subject, at: now) {
            case .mayAskSoon(let time): hold(place, subject, until: time)
            case .full(let retryAfter):
                if isWeighted {
                    refuseDear(place, subject, at: now)
                } else {
                    refuseGathered(place, retryAfter, at: now)
                }
            case .unknown, .mayAsk: if isWeighted { refuseDear(place, subject, at: now) }
            }
        }
        if subjects[place].waiting > 0 {
            gather(place, subject)
        } else if !subjects[place].isQueued {
            freeList(subjects[place].first)
            subjects.remove(subject)
        }
    }

    /// The window turned out to be full while these waited for their turn.
    private mutating func refuseGathered(_ place: Int, _ retryAfter: TimeSpan, at now: MonotonicTime) {
        var index = subjects[place].first
        subjects[place].first = -1
        subjects[place].last = -1
        subjects[place].waiting = 0
        while index >= 0, let request = requests.remove(Int(index)) {
            if request.state == .waiting, request.part >= 0 {
                partRefused(request.part, retryAfter: retryAfter, by: .fullWindow, at: now)
            } else if request.state == .waiting {
                context.count(.refuse(retryAfter: retryAfter), of: request.subject, by: .fullWindow)
                deliver(.refuse(retryAfter: retryAfter), request)
            }
            index = request.next
        }
    }

    /// The same where requests differ in cost: what costs less goes on.
    private mutating func refuseDear(_ place: Int, _ subject: SubjectKey, at now: MonotonicTime) {
        let wholeWait = context.policies[Int(subject.policy)].wholeWait
        var index = subjects[place].first
        subjects[place].first = -1
        subjects[place].last = -1
        subjects[place].waiting = 0
        while index >= 0 {
            let request = requests[Int(index)]
            let known = context.fullWindows.peek(subject, cost: request.cost, wholeWait: wholeWait, at: now)
            if request.state != .waiting {
                _ = requests.remove(Int(index))
            } else if case .full(let retryAfter) = known {
                _ = requests.remove(Int(index))
                if request.part >= 0 {
                    partRefused(request.part, retryAfter: retryAfter, by: .fullWindow, at: now)
                } else {
                    context.count(.refuse(retryAfter: retryAfter), of: request.subject, by: .fullWindow)
                    deliver(.refuse(retryAfter: retryAfter), request)
                }
            } else {
                requests[Int(index)].next = -1
                let last = subjects[place].last
                if last >= 0 { requests[Int(last)].next = index } else { subjects[place].first = index }
                subjects[place].last = index
                subjects[place].waiting += 1
            }
            index = request.next
        }
    }

    // MARK: Probes

    private mutating func probeReplied(sentAt: MonotonicTime, _ reply: Reply, at now: MonotonicTime) {
        probeUnderWay = false
        // [9 or 10] [2] seconds microseconds · 3 counts · [0] · 3 counts · the marker · a count
        guard reply.elementCount(0) == probeCommands, reply.count == probeCommands + 3, reply.elementCount(7) == 0,
            let sample = ServerTimeSample(reply, at: 1, sentAt: sentAt, receivedAt: now)
        else {
            if let refusal = reply.firstError {
                // Allowed when it was queued and not any more when it was executed.
                refused(.refused(refusal))
            } else {
                distrust("a probe's answer of another shape")
            }
            return
        }
        observe(sample)
        markerFound(reply.bytes(11))
        breaker.probeAnswered(inTime: now - sentAt <= context.probePatience)
        reportRestored()
    }
}
