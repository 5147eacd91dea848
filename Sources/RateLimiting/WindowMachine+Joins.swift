// One request, several policies. Each is asked for a slot, all in one write; the request passes only if all admit. What
// one admitted and another refused is given back with the next write, through the same list as everything that must be
// put right, which keeps it until it is acknowledged.
//
// Requests of one subject gather whatever other policies they have. On one server all windows of a write share one
// `MULTI`; docs/decisions/policies.md has the figures.
//
// Until a slot is given back, for one round trip, it is missing to others of the same subject. So a refusal by one policy
// can cost another policy's subject a request at its very limit; nobody ever gets more.

package import Identity
package import Primitives

extension WindowMachine {
    /// A request that several policies decide.
    struct Join {
        var requester: (any LimitRequester)?
        var token: UInt64
        /// Parts without a verdict.
        var waiting = 0
        var firstPart: Int32 = -1
        var report = PolicyReport()
    }

    /// What a request asks of one policy.
    struct Part {
        enum State {
            case waiting(request: Int32)
            /// Is asked for with another, whose window's time is about to come.
            case postponed
            /// This entry is in the window.
            case taken(name: UInt64, time: RedisTime, at: MonotonicTime)
            case refused
            /// Without an entry. Only what another decides as a whole waits in this state.
            case admittedByLossRule
        }
        /// -1 where another decides the whole, and gets a `PartAnswer`.
        var join: Int32
        var subject: SubjectKey
        var cost: UInt16 = 1
        var state: State
        var next: Int32
        /// As it was asked with.
        var token: UInt64 = 0
    }

    /// What was decided of a request at once.
    package enum JointDecision: Sendable {
        case decided(PolicyReport)
        case pending
    }

    /// Decides a request of several subjects, each of another policy, or takes it in.
    ///
    /// - Parameter costs: what it takes of each; empty for one slot.
    package mutating func ask(
        all subjects: [SubjectKey], costs: [UInt16] = [], _ requester: any LimitRequester, token: UInt64,
        at now: MonotonicTime
    ) -> JointDecision {
        guard breaker.mayWait else { return .decided(lossReport(subjects, costs, at: now)) }
        var holder: SubjectKey?
        let known = context.knownFull(subjects, costs, at: now) { subject in
            if mayWaitForItsTime(subject, at: now) { holder = subject }
            return holder == subject || isAboutToAsk(subject)
        }
        if known.isRefused { return .decided(known) }
        let flooded = context.localRefusal(subjects, costs, at: now)
        if flooded.isRefused { return .decided(flooded) }
        let index = Int32(clamping: joins.insert(Join(requester: requester, token: token)))
        joins[Int(index)].waiting = subjects.count
        for place in subjects.indices.reversed() {
            let part = Part(
                join: index, subject: subjects[place], cost: costs.cost(place), state: .postponed,
                next: joins[Int(index)].firstPart, token: token)
            joins[Int(index)].firstPart = Int32(clamping: parts.insert(part))
        }
        if let holder {
            askParts(of: index, only: holder, at: now)
            // The others follow when its time has come, so that all are in one write.
            if isWaitingForItsTime(holder) { return .pending }
            if joins.contains(Int(index)), joins[Int(index)].report.isRefused { leaveOut(index, at: now) }
        }
        if joins.contains(Int(index)) { askParts(of: index, at: now) }
        return .pending
    }

    /// Asks for what a request takes of each policy and has not been asked for, or of one of them.
    mutating func askParts(of index: Int32, only one: SubjectKey? = nil, at now: MonotonicTime) {
        var hasRoom = true
        var part = joins[Int(index)].firstPart
        while part >= 0 {
            let (subject, cost, token) = (parts[Int(part)].subject, parts[Int(part)].cost, parts[Int(part)].token)
            let next = parts[Int(part)].next
            defer { part = next }
            guard case .postponed = parts[Int(part)].state, one == nil || one == subject else { continue }
            let entered = enter(subject, nil, token: token, part: part, cost: cost, at: now)
            if case .pending(let request) = entered {
                parts[Int(part)].state = .waiting(request: request)
                continue
            }
            parts[Int(part)].state = .refused
            joins[Int(index)].waiting -= 1
            if case .full(let retryAfter) = entered {
                context.note(.refuse(retryAfter: retryAfter), subject, by: .fullWindow, in: &joins[Int(index)].report)
            } else {
                hasRoom = false
                context.note(.refuse(retryAfter: .seconds(1)), subject, by: .closed, in: &joins[Int(index)].report)
            }
        }
        if !hasRoom {
            decideByLoss(index, at: now, isTimeout: false)
        } else if joins[Int(index)].waiting == 0 {
            complete(index, at: now)
        }
    }

    /// One has refused before the others were asked: they are not.
    private mutating func leaveOut(_ index: Int32, at now: MonotonicTime) {
        var place = joins[Int(index)].firstPart
        while place >= 0 {
            if case .postponed = parts[Int(place)].state {
                let policy = parts[Int(place)].subject.policy
                parts[Int(place)].state = .refused
                joins[Int(index)].waiting -= 1
                joins[Int(index)].report.mention(policy, isShadow: context.policies[Int(policy)].mode == .shadow)
            }
            place = parts[Int(place)].next
        }
        complete(index, at: now)
    }

    /// Whether the one who asks for a slot of a window that was full goes with the next write: others can go along.
    func isAboutToAsk(_ subject: SubjectKey) -> Bool {
        guard let place = subjects.find(subject) else { return false }
        return subjects[place].waiting > 0 && subjects[place].flights == 0 && !subjects[place].isHeld
    }

    // MARK: Verdicts

    mutating func partAdmitted(_ part: Int32, name: UInt64, remaining: Int?, time: RedisTime, at now: MonotonicTime) {
        parts[Int(part)].state = .taken(name: name, time: time, at: now)
        decided(part, .admit(remaining: remaining), by: .window, at: now)
    }

    mutating func partRefused(
        _ part: Int32, retryAfter: TimeSpan, by source: VerdictSource, at now: MonotonicTime
    ) {
        parts[Int(part)].state = .refused
        decided(part, .refuse(retryAfter: retryAfter), by: source, at: now)
    }

    private mutating func decided(
        _ part: Int32, _ verdict: Verdict, by source: VerdictSource, at now: MonotonicTime
    ) {
        let (join, subject) = (parts[Int(part)].join, parts[Int(part)].subject)
        guard join >= 0 else {
            partDecided(part, verdict, by: source)
            return
        }
        let cost = parts[Int(part)].cost
        context.note(verdict, subject, cost: cost, by: source, in: &joins[Int(join)].report)
        joins[Int(join)].waiting -= 1
        if joins[Int(join)].waiting == 0 { complete(join, at: now) }
    }

    /// All have spoken.
    private mutating func complete(_ index: Int32, at now: MonotonicTime) {
        guard var join = joins.remove(Int(index)) else { return }
        var place = join.firstPart
        while place >= 0, let part = parts.remove(Int(place)) {
            place = part.next
            if case .taken(let name, let time, let at) = part.state {
                keep(part, name, time, at, !join.report.isRefused, &join.report.lease, now)
            }
        }
        deliver(join.report, join)
    }

    /// What becomes of an entry when everything is decided.
    mutating func keep(
        _ part: Part, _ name: UInt64, _ time: RedisTime, _ at: MonotonicTime, _ isKept: Bool, _ lease: inout Int32,
        _ now: MonotonicTime
    ) {
        let (subject, cost) = (part.subject, Int(part.cost))
        if isKept {
            context.decisions?.admitted(cost, subject, by: .window, at: time)
            if context.isLeased(subject) {
                context.held.add(subject)
                lease = leases.begin(subject, name: name, next: lease, at: now)
                return
            }
            remember(Entries(subject: subject, first: name, count: cost, at: at, isCharged: true), at: now)
            context.memory(of: subject).record(cost, of: subject, at: now)
        } else {
            // The entry may be what made the window full.
            context.fullWindows.forget(subject)
            guard at >= countsKnownSince || !context.isInBuckets(subject) else { return }
            putRight(Entries(subject: subject, first: name, count: cost, at: now, isCharged: false))
        }
    }

    // MARK: Loss

    /// Decides by the loss rule, at once: all admit, or nothing is taken.
    private mutating func lossReport(
        _ subjects: [SubjectKey], _ costs: [UInt16], at now: MonotonicTime
    ) -> PolicyReport {
        var report = PolicyReport()
        for (place, subject) in subjects.enumerated() { noteLoss(subject, costs.cost(place), in: &report, at: now) }
        for index in 0..<report.count where !report[index].isRefused {
            let (subject, cost) = (subjects[index], costs.cost(index))
            if report.isRefused {
                takeBack(subject, cost)
            } else {
                log(subject, Int(cost), by: lossSource, at: now)
                charge(subject, cost, lease: &report.lease, at: now)
            }
        }
        return report
    }

    private mutating func noteLoss(
        _ subject: SubjectKey, _ cost: UInt16, in report: inout PolicyReport, at now: MonotonicTime
    ) {
        let verdict = lossVerdict(subject, cost: cost, at: now, charging: false, isFinal: false)
        let isShadow = context.policies[Int(subject.policy)].mode == .shadow
        report.add(verdict, of: subject.policy, isShadow: isShadow, cost: cost)
    }

    var lossSource: VerdictSource {
        switch context.lossRule {
        case .open: .open
        case .closed: .closed
        case .share: .share
        }
    }

    func takeBack(_ subject: SubjectKey, _ cost: UInt16) {
        if context.isLeased(subject) {
            context.held.remove(subject)
            return
        }
        if context.lossRule == .share { context.memory(of: subject).takeBack(subject, cost: Int(cost)) }
    }

    mutating func decideByLoss(joinOf part: Int32, at now: MonotonicTime, isTimeout: Bool) {
        let join = parts[Int(part)].join
        if join >= 0 {
            decideByLoss(join, at: now, isTimeout: isTimeout)
        } else {
            partLost(part, at: now, isTimeout: isTimeout)
        }
    }

    /// The request at `index` gets no answer from Redis. Call it before the request is removed.
    mutating func decideByLossIfJoined(_ index: Int32, at now: MonotonicTime) {
        guard requests.contains(Int(index)), requests[Int(index)].part >= 0, requests[Int(index)].state == .waiting
        else { return }
        decideByLoss(joinOf: requests[Int(index)].part, at: now, isTimeout: false)
    }

    /// The loss rule decides whatever of a request is not decided; what is under way is put right when its answer comes.
    private mutating func decideByLoss(_ index: Int32, at now: MonotonicTime, isTimeout: Bool) {
        guard var join = joins.remove(Int(index)) else { return }
        // First what all of them say, then what follows from it for each.
        let before = join.report.count
        var place = join.firstPart
        while place >= 0 {
            switch parts[Int(place)].state {
            case .waiting, .postponed:
                noteLoss(parts[Int(place)].subject, parts[Int(place)].cost, in: &join.report, at: now)
            case .taken, .refused, .admittedByLossRule: break
            }
            place = parts[Int(place)].next
        }
        let isRefused = join.report.isRefused
        var item = before
        place = join.firstPart
        while place >= 0, let part = parts.remove(Int(place)) {
            place = part.next
            switch part.state {
            case .refused, .admittedByLossRule: break
            case .taken(let name, let time, let at):
                keep(part, name, time, at, !isRefused, &join.report.lease, now)
            case .waiting, .postponed:
                let isAdmitted = !join.report[item].isRefused
                item += 1
                if isAdmitted, isRefused { takeBack(part.subject, part.cost) }
                if isAdmitted, !isRefused { log(part.subject, Int(part.cost), by: lossSource, at: now) }
                let passes = isAdmitted && !isRefused
                guard case .waiting(let request) = part.state else {
                    if passes { charge(part.subject, part.cost, lease: &join.report.lease, at: now) }
                    continue
                }
                // A lease needs a name that is known: the entry under way is taken out again.
                let isLeased = passes && context.isLeased(part.subject)
                answered(Int(request), isAdmitted: passes && !isLeased, at: now, isTimeout: isTimeout)
                if isLeased { charge(part.subject, part.cost, lease: &join.report.lease, at: now) }
            }
        }
        deliver(join.report, join)
    }

    /// A request without an answer of its own was answered by the loss rule.
    mutating func answered(_ index: Int, isAdmitted: Bool, at now: MonotonicTime, isTimeout: Bool) {
        let request = requests[index]
        requests[index].state = isAdmitted ? .admittedByLossRule : .refusedByLossRule
        requests[index].part = -1
        requests[index].deadline = now
        guard request.flight < 0 else {
            if isTimeout { noteTimeout(Int(request.flight)) }
            return
        }
        if let place = subjects.find(request.subject), subjects[place].waiting > 0 { noLongerWaits(place) }
        if isAdmitted { charge(request.subject, request.cost, at: now) }
    }
}

extension LimiterContext {
    /// Which windows of a request are known to be full. Where one is, nobody else is asked.
    func knownFull(
        _ subjects: [SubjectKey], _ costs: [UInt16], at now: MonotonicTime, isAboutToAsk: (SubjectKey) -> Bool
    ) -> PolicyReport {
        var report = PolicyReport()
        for (place, subject) in subjects.enumerated() {
            let policy = policies[Int(subject.policy)]
            let cost = costs.cost(place)
            if policy.mode == .enforce,
                case .full(let retryAfter) = fullWindows.peek(
                    subject, cost: cost, wholeWait: policy.wholeWait, at: now),
                !isAboutToAsk(subject)
            {
                note(.refuse(retryAfter: retryAfter), subject, by: .fullWindow, in: &report)
            } else {
                report.mention(subject.policy, isShadow: policy.mode == .shadow)
            }
        }
        return report
    }

    /// Notes what one policy said of a request.
    func note(
        _ verdict: Verdict, _ subject: SubjectKey, cost: UInt16 = 1, by source: VerdictSource,
        in report: inout PolicyReport
    ) {
        count(verdict, of: subject, by: source)
        report.add(verdict, of: subject.policy, isShadow: policies[Int(subject.policy)].mode == .shadow, cost: cost)
    }
}
