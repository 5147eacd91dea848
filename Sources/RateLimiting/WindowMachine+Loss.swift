// What becomes of requests when Redis does not answer, and what is put right when it does again.
//
// No request waits longer than the timeout. What the loss rule admits is charged to the window as soon as Redis can be
// asked again, as long as it lies in the window; what the loss rule refused although Redis had let it in is taken out.
// Both are kept until they are acknowledged.

import Identity
package import Primitives
package import RedisClient

extension WindowMachine {
    // MARK: The connection

    /// A server that nobody has asked yet is being connected to, as a slot has moved there: requests wait for that for as
    /// long as one request waits for an answer. Call `expire` then.
    package mutating func connecting(at now: MonotonicTime) { breaker.connecting(until: now + context.timeout) }

    /// Logged in. What was known of another server's clock does not count any more.
    package mutating func connected(_ sample: ServerTimeSample) {
        for index in clocks.indices { clocks[index].reconnected(sample) }
        lastHeardAt = sample.receivedAt
        breaker.connected(isInTime: isInTime(sample))
        // A server that was restarted, or has taken over, may know nothing of what was admitted a moment ago. Entries
        // that it still has keep their names, so adding them again changes nothing.
        while let run = recent.popFirst() { putRight(run) }
        reservationsForgotten(at: sample.receivedAt)
    }

    /// Whether a sample says more than roughly what time it is.
    func isInTime(_ sample: ServerTimeSample) -> Bool { sample.receivedAt - sample.sentAt <= context.probePatience }

    /// What the server's marker reads now. Another value than before: its data was lost under us (`FLUSHALL`, or a server
    /// in another's place), and with it what had been admitted.
    mutating func markerFound(_ value: [UInt8]) {
        guard value != epoch else { return }
        let isFirst = epoch.isEmpty
        epoch = value
        guard !isFirst else { return }
        context.failures.countDataLoss()
        report(.dataLost)
        while let run = recent.popFirst() { putRight(run) }
        reservationsForgotten(at: lastHeardAt)
    }

    /// The connection is gone; everything under way has failed before.
    package mutating func disconnected(_ failure: RedisFailure, at now: MonotonicTime) {
        breaker.disconnected()
        probeUnderWay = false
        context.failures.count(failure.cause)
        reportLoss(failure)
        while let flight = ready.popFirst() { failed(flight, isExecuted: false, at: now) }
        releaseGathered(at: now)
    }

    /// A transmission got no answer that can be used.
    package mutating func failed(_ token: UInt64, _ failure: RedisFailure, at now: MonotonicTime) {
        guard let flight = flights.remove(Int(clamping: token)) else { return }
        var mayBeExecuted = true
        var isHopeless = false
        switch failure {
        case .refused(let text):
            mayBeExecuted = false
            lastHeardAt = now
            let cause = RedisCause(errorText: text)
            switch flight {
            // A single key of another type says nothing of the server.
            case .window, .confirmation, .probe: if cause != .wrongType { refused(failure) }
            // Nor does what the server would refuse for ever. It is loading its data, or a replica, or takes no writes at
            // the moment: then that has to be written later.
            case .entries(let run):
                isHopeless = cause == .wrongType || cause == .permission
                if isHopeless {
                    let consequence: KeyFailure.Consequence =
                        run.renewal >= 0 ? .notRenewed : run.isCharged ? .notCharged : .notGivenBack
                    keyFailed(run.subject, consequence, text, at: now)
                } else {
                    refused(failure)
                }
            case .cleanup, .sweep: break
            case .carrying(let subject):
                if cause == .permission {
                    keyFailed(subject, .notCarried, text, at: now)
                } else {
                    refused(failure)
                }
            }
        case .notConnected: mayBeExecuted = false
        case .lost, .unanswered, .replaced, .silent, .late, .moved, .malformed, .tooLarge, .untrusted, .sentinel: break
        }
        if case .entries = flight { entriesUnderWay -= 1 }
        failed(flight, isExecuted: mayBeExecuted, isHopeless: isHopeless, at: now)
    }

    /// A command on a subject's key has failed. What says nothing of the server is counted, and told once in a while: it
    /// spoils each of that subject's decisions.
    mutating func keyFailed(
        _ subject: SubjectKey, _ consequence: KeyFailure.Consequence, _ text: String, at now: MonotonicTime
    ) {
        let former = consequence == .notCarried ? context.former[Int(subject.policy)]?.keys ?? [] : []
        let failure = KeyFailure(
            context.policy(of: subject), key: context.key(of: subject).text(subject),
            former: former.map { $0.text(subject) }, consequence, .refused(text))
        context.failures.count(failure.kind.cause)
        guard keysTold.mayTell(failure.kind, again: failure.kind.pause, at: now) else { return }
        report(.keyFailed(failure))
    }

    /// The server says that it cannot serve.
    mutating func refused(_ failure: RedisFailure) {
        breaker.refused()
        context.failures.count(failure.cause)
        reportLoss(failure)
    }

    private mutating func failed(_ flight: Flight, isExecuted: Bool, isHopeless: Bool = false, at now: MonotonicTime) {
        switch flight {
        case .window(let flight):
            settleByLossRule(flight, mayHaveEntries: isExecuted, at: now)
            landed(flight.transaction.subject, at: now)
        case .confirmation(let flight, _, _): settleByLossRule(flight, mayHaveEntries: true, at: now)
        // What may have been taken off a count must not be taken off twice.
        case .entries(let run):
            // What was to be renewed is, a little later.
            let mayRepeat = run.isCharged || !isExecuted || !context.isInBuckets(run.subject)
            if !isHopeless, run.renewal < 0, mayRepeat { returned.append(run) }
        case .cleanup, .sweep, .carrying: break
        case .probe: probeUnderWay = false
        }
    }

    // MARK: Deadlines and probes

    /// Answers by the loss rule whoever may wait no longer than until `deadline`.
    package mutating func expire(through deadline: MonotonicTime, at now: MonotonicTime) {
        let isConnecting = breaker.isConnecting
        var silentSince: MonotonicTime?
        while true {
            dropStaleDeadlines()
            guard let (index, _) = deadlines.first, requests[Int(index)].deadline <= deadline else { break }
            _ = deadlines.popFirst()
            let askedAt = requests[Int(index)].deadline - context.timeout
            if !expire(index, at: now) { silentSince = askedAt }
        }
        // Who waited behind others and heard nothing of them lost one question too.
        if !isConnecting, let silentSince, lastHeardAt < silentSince { noteLoss() }
        breaker.waited(until: deadline)
        if !breaker.mayWait { releaseGathered(at: now) }
    }

    /// Returns whether the request was under way.
    private mutating func expire(_ index: Int32, at now: MonotonicTime) -> Bool {
        let request = requests[Int(index)]
        let isUnderWay = request.flight >= 0
        if request.part >= 0 {
            decideByLoss(joinOf: request.part, at: now, isTimeout: true)
            return isUnderWay
        }
        // What is under way is put right when its answer comes, or when the connection is given up.
        let verdict = lossVerdict(request.subject, cost: request.cost, at: now, charging: !isUnderWay)
        switch verdict {
        case .admit: requests[Int(index)].state = .admittedByLossRule
        case .refuse: requests[Int(index)].state = .refusedByLossRule
        }
        requests[Int(index)].requester = -1
        deliver(verdict, request)
        if isUnderWay {
            noteTimeout(Int(request.flight))
        } else if let place = subjects.find(request.subject) {
            noLongerWaits(place)
        }
        return isUnderWay
    }

    mutating func noteTimeout(_ flight: Int) {
        guard flights.contains(flight), case .window(var window) = flights[flight], !window.isTimedOut else { return }
        window.isTimedOut = true
        flights[flight] = .window(window)
        noteLoss()
    }

    private mutating func noteLoss() {
        breaker.timedOut()
        context.failures.count(.silent)
        if !breaker.mayAsk {
            reportLoss(.late("no answer within \(context.timeout), \(LossBreaker.lossesMax) times in a row"))
        }
    }

    /// A question of our own, where one is due: whether a suspended server is back; whether it still has its data, as
    /// long as that matters; or, when nothing was heard for a while, what time it is.
    package mutating func probe(at now: MonotonicTime) -> Transmission? {
        guard !probeUnderWay else { return nil }
        while let oldest = recent.first, now - oldest.at >= context.window(of: oldest.subject) { _ = recent.popFirst() }
        switch breaker.state {
        case .connecting, .disconnected: return nil
        case .asking:
            let isDue = lossReported != nil || epoch.isEmpty || now - lastHeardAt >= LossBreaker.idlePause
            if !isDue, protectsNothing || now - lastProbeAt < LossBreaker.markerPause { return nil }
        case .suspended: break
        }
        probeUnderWay = true
        lastProbeAt = now
        probeName = names.take(1)
        return Transmission(
            token: UInt64(flights.insert(.probe(sentAt: now))), form: .transaction(commands: probeCommands))
    }

    /// Whether the server could lose its data and nobody would get more for it.
    private var protectsNothing: Bool { recent.isEmpty && leases.count == 0 }

    /// When `probe` should be called again.
    package var probePause: TimeSpan {
        switch breaker.state {
        case .connecting, .disconnected: LossBreaker.idlePause
        case .asking: protectsNothing ? LossBreaker.idlePause : LossBreaker.markerPause
        case .suspended: LossBreaker.probePause
        }
    }

    // MARK: The loss rule

    /// Decides by the loss rule.
    ///
    /// - Parameters:
    ///   - charging: whether an admission has to be charged to the window later under a name of its own.
    ///   - isFinal: whether it is admitted by that, and not only if other policies admit it too.
    mutating func lossVerdict(
        _ subject: SubjectKey, cost: UInt16 = 1, at now: MonotonicTime, charging: Bool, isFinal: Bool = true
    ) -> Verdict {
        let verdict: Verdict
        let source: VerdictSource
        switch context.lossRule {
        case .open:
            (verdict, source) = (.admit(remaining: nil), .open)
            if context.isLeased(subject) { context.held.add(subject) }
        case .closed: (verdict, source) = (.refuse(retryAfter: .seconds(1)), .closed)
        case .share where context.isLeased(subject):
            (verdict, source) = (context.held.admit(subject, share: context.share(of: subject)), .share)
        case .share:
            let share = context.share(of: subject)
            verdict = context.memory(of: subject).admit(subject, cost: Int(cost), share: share, at: now)
            source = .share
        }
        context.count(verdict, of: subject, by: source)
        if isFinal, case .admit = verdict { log(subject, Int(cost), by: source, at: now) }
        if charging, case .admit = verdict { charge(subject, cost, at: now) }
        return verdict
    }

    /// Writes down an admission without Redis, as near as the server's clock is known.
    func log(_ subject: SubjectKey, _ cost: Int, by source: VerdictSource, at now: MonotonicTime) {
        let place = context.windowOf[Int(subject.policy)]
        guard let log = context.decisions else { return }
        log.admitted(cost, subject, by: source, at: clocks[place].isKnown ? clocks[place].estimate(at: now) : nil)
    }

    /// Answers everyone of a transaction that Redis did not decide.
    ///
    /// - Parameter mayHaveEntries: whether the transaction may have been executed, or may still be.
    mutating func settleByLossRule(_ flight: WindowFlight, mayHaveEntries: Bool, at now: MonotonicTime) {
        var position = 0
        var index = flight.firstRequest
        while index >= 0 {
            decideByLossIfJoined(index, at: now)
            guard var request = requests.remove(Int(index)) else { return }
            if request.state == .waiting {
                let verdict = lossVerdict(request.subject, cost: request.cost, at: now, charging: false)
                deliver(verdict, request)
                request.deadline = now
                switch verdict {
                case .admit: request.state = .admittedByLossRule
                case .refuse: request.state = .refusedByLossRule
                }
            }
            switch request.state {
            case .waiting: break
            case .admittedByLossRule: charge(flight, position, request)
            // What may not have been counted must not be taken off a count.
            case .refusedByLossRule:
                if mayHaveEntries, !context.isInBuckets(request.subject) {
                    giveBack(flight, position, Int(request.cost), at: now)
                }
            }
            index = request.next
            position += Int(request.cost)
        }
    }

    /// Answers a list of requests without entries.
    mutating func answerByLossRule(_ first: Int32, at now: MonotonicTime) {
        var index = first
        while index >= 0 {
            decideByLossIfJoined(index, at: now)
            guard let request = requests.remove(Int(index)) else { return }
            if request.state == .waiting {
                deliver(lossVerdict(request.subject, cost: request.cost, at: now, charging: true), request)
            }
            index = request.next
        }
    }

    /// Nobody gathers for a server that is not asked.
    mutating func releaseGathered(at now: MonotonicTime) {
        while let (subject, _) = held.popLast() { unhold(subject) }
        while let subject = gathered.popFirst() {
            guard let place = subjects.find(subject) else { continue }
            let first = subjects[place].first
            subjects[place].first = -1
            subjects[place].last = -1
            subjects[place].waiting = 0
            subjects[place].isQueued = false
            dropIfIdle(place, subject)
            answerByLossRule(first, at: now)
        }
    }

    // MARK: Putting right

    /// The request in a transaction was admitted without it, `position` places behind the first: its entry has to be in.
    mutating func charge(_ flight: WindowFlight, _ position: Int, _ request: Request) {
        let cost = Int(request.cost)
        let name = position + cost <= flight.transaction.count ? self.name(flight, position) : names.take(cost)
        putRight(
            Entries(
                subject: flight.transaction.subject, first: name, count: cost, at: request.deadline, isCharged: true))
    }

    /// A request was admitted that has no entries: they have to be in.
    mutating func charge(_ subject: SubjectKey, _ cost: UInt16, at now: MonotonicTime) {
        let count = Int(cost)
        putRight(Entries(subject: subject, first: names.take(count), count: count, at: now, isCharged: true))
    }

    /// The same, where the request may hold a lease.
    mutating func charge(_ subject: SubjectKey, _ cost: UInt16, lease: inout Int32, at now: MonotonicTime) {
        guard context.isLeased(subject) else {
            charge(subject, cost, at: now)
            return
        }
        let name = names.take(1)
        putRight(Entries(subject: subject, first: name, count: 1, at: now, isCharged: true))
        lease = leases.begin(subject, name: name, next: lease, at: now)
    }

    /// What the entry at a place of a transaction is called: of those in a bucket, all the same.
    func name(_ flight: WindowFlight, _ position: Int) -> UInt64 {
        context.isInBuckets(flight.transaction.subject)
            ? flight.transaction.first : flight.transaction.first &+ UInt64(position)
    }

    /// The request was refused: its entries, if it has any, must not stay.
    mutating func giveBack(_ flight: WindowFlight, _ position: Int, _ count: Int, at now: MonotonicTime) {
        let count = min(count, flight.transaction.count - position)
        guard count > 0 else { return }
        putRight(
            Entries(
                subject: flight.transaction.subject, first: name(flight, position), count: count, at: now,
                isCharged: false))
    }

    mutating func putRight(_ run: Entries) {
        if entries.extendLast(with: run, isBucket: context.isInBuckets(run.subject)) { return }
        if entries.count >= Self.entriesMax {
            if untilSifted <= 0 { sift(at: run.at) }
            if entries.count >= Self.entriesMax {
                // The oldest leave their window first.
                _ = entries.popFirst()
                entriesDropped += 1
            }
        }
        untilSifted -= 1
        entries.append(run)
    }

    /// Drops what is worth nothing any more: what has left its window, and what will be renewed again. At most once for so
    /// many new runs that it costs each of them a few steps.
    private mutating func sift(at now: MonotonicTime) {
        untilSifted = Self.entriesMax / 4
        var kept = Queue<Entries>()
        while let run = entries.popFirst() {
            if run.renewal < 0, now - run.at < context.window(of: run.subject) { kept.append(run) }
        }
        entries = kept
    }

    /// Keeps in mind that entries are in the window.
    mutating func remember(_ flight: WindowFlight, _ position: Int, _ count: UInt16, at now: MonotonicTime) {
        remember(
            Entries(
                subject: flight.transaction.subject, first: flight.transaction.first &+ UInt64(position),
                count: Int(count), at: now, isCharged: true),
            at: now)
    }

    mutating func remember(_ run: Entries, at now: MonotonicTime) {
        // What is still in a count would be counted twice. Leases are renewed anyway.
        if context.isInBuckets(run.subject) || context.isLeased(run.subject) { return }
        if recent.extendLast(with: run, isBucket: false) { return }
        guard context.window(of: run.subject) <= Self.rememberedMax else { return }
        while let oldest = recent.first,
            recent.count >= Self.entriesMax || now - oldest.at >= context.window(of: oldest.subject)
        {
            _ = recent.popFirst()
        }
        recent.append(run)
    }

    /// What failed is older than what waits.
    mutating func takeUpReturned() {
        guard !returned.isEmpty else { return }
        while let run = entries.popFirst() { returned.append(run) }
        swap(&entries, &returned)
    }

    mutating func nextEntries(at now: MonotonicTime) -> Entries? {
        takeUpReturned()
        while canSendEntries, var run = entries.popFirst() {
            if run.renewal >= 0 {
                guard leases.holds(run.renewal, run.first) else { continue }
                run.at = now
            }
            if now - run.at < context.window(of: run.subject) { return run }
        }
        return nil
    }

    /// Whether there is something to put right, or something let in so lately that the server may yet forget it.
    mutating func isOwing(at now: MonotonicTime) -> Bool {
        while let oldest = recent.first, now - oldest.at >= context.window(of: oldest.subject) { _ = recent.popFirst() }
        takeUpReturned()
        while let oldest = entries.first, now - oldest.at >= context.window(of: oldest.subject) {
            _ = entries.popFirst()
        }
        return !entries.isEmpty || entriesUnderWay > 0 || !recent.isEmpty
    }

    // MARK: Reports

    private mutating func reportLoss(_ failure: RedisFailure) {
        guard lossReported != failure.cause else { return }
        lossReported = failure.cause
        report(.lost(failure))
    }

    /// The server has answered, which tells something only if it may also be asked.
    mutating func reportRestored() {
        guard lossReported != nil, breaker.mayAsk else { return }
        lossReported = nil
        report(.restored)
    }
}

extension Queue<WindowMachine.Entries> {
    /// Whether the entry continues the last run, and has become part of it.
    fileprivate mutating func extendLast(with run: WindowMachine.Entries, isBucket: Bool) -> Bool {
        updateLast { last in
            guard last.subject == run.subject, last.isCharged == run.isCharged, last.renewal < 0, run.renewal < 0,
                isBucket
                    ? last.first == run.first || run.isCharged
                    : last.first &+ UInt64(last.count) == run.first && last.count < WindowTransaction.entriesMax,
                run.at - last.at < TimeSpan.milliseconds(1)
            else { return false }
            last.count += run.count
            // Entries of a run leave together, with the latest of them.
            last.at = max(last.at, run.at)
            return true
        }
    }
}
