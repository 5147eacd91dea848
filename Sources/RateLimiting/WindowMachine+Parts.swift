// On a cluster the policies of one request may have their windows on several servers, each with a machine of its own.
// A machine then decides its part, and keeps what it took until it is told what became of the whole.

package import Identity
package import Primitives

extension WindowMachine {
    /// What a machine says of its part of a request.
    package struct PartAnswer: Equatable, Sendable {
        /// As it was asked with.
        package var token: UInt64
        package var verdict: Verdict
        /// What was taken, for `finish`; -1 where nothing was.
        package var part: Int32 = -1
    }

    package enum PartDecision: Equatable, Sendable {
        case decided(PartAnswer)
        case pending
    }

    /// Decides a part, or takes it in: a `PartAnswer` will follow.
    package mutating func ask(
        part subject: SubjectKey, cost: UInt16 = 1, token: UInt64, at now: MonotonicTime
    ) -> PartDecision {
        guard breaker.mayWait else { return .decided(lostPart(subject, cost, token, at: now)) }
        let part = Int32(
            clamping: parts.insert(
                Part(join: -1, subject: subject, cost: cost, state: .refused, next: -1, token: token)))
        switch enter(subject, nil, token: token, part: part, cost: cost, at: now) {
        case .pending(let request):
            parts[Int(part)].state = .waiting(request: request)
            return .pending
        case .full(let retryAfter):
            _ = parts.remove(Int(part))
            let verdict = Verdict.refuse(retryAfter: retryAfter)
            context.count(verdict, of: subject, by: .fullWindow)
            return .decided(PartAnswer(token: token, verdict: verdict))
        case .noRoom:
            _ = parts.remove(Int(part))
            return .decided(lostPart(subject, cost, token, at: now))
        }
    }

    /// What has become of the whole: what was taken stays, or is given back.
    ///
    /// - Parameter lease: the first lease of the request so far.
    package mutating func finish(_ part: Int32, isKept: Bool, lease: inout Int32, at now: MonotonicTime) {
        guard let part = parts.remove(Int(part)) else { return }
        switch part.state {
        case .taken(let name, let time, let at): keep(part, name, time, at, isKept, &lease, now)
        case .admittedByLossRule:
            if isKept {
                log(part.subject, Int(part.cost), by: lossSource, at: now)
                charge(part.subject, part.cost, lease: &lease, at: now)
            } else {
                takeBack(part.subject, part.cost)
            }
        case .waiting, .postponed, .refused: break
        }
    }

    /// The window has spoken.
    mutating func partDecided(_ part: Int32, _ verdict: Verdict, by source: VerdictSource) {
        context.count(verdict, of: parts[Int(part)].subject, by: source)
        var answer = PartAnswer(token: parts[Int(part)].token, verdict: verdict, part: part)
        if case .refuse = verdict {
            _ = parts.remove(Int(part))
            answer.part = -1
        }
        report(answer)
    }

    /// A part that waits gets no answer from Redis. Until it is known what becomes of the whole, its entry counts as one
    /// to be taken out: if it is to stay after all, another is charged.
    mutating func partLost(_ part: Int32, at now: MonotonicTime, isTimeout: Bool) {
        guard case .waiting(let request) = parts[Int(part)].state, let lost = parts.remove(Int(part)) else { return }
        answered(Int(request), isAdmitted: false, at: now, isTimeout: isTimeout)
        report(lostPart(lost.subject, lost.cost, lost.token, at: now))
    }

    private mutating func lostPart(
        _ subject: SubjectKey, _ cost: UInt16, _ token: UInt64, at now: MonotonicTime
    ) -> PartAnswer {
        let verdict = lossVerdict(subject, cost: cost, at: now, charging: false, isFinal: false)
        guard case .admit = verdict else { return PartAnswer(token: token, verdict: verdict) }
        let part = parts.insert(
            Part(join: -1, subject: subject, cost: cost, state: .admittedByLossRule, next: -1, token: token))
        return PartAnswer(token: token, verdict: verdict, part: Int32(clamping: part))
    }
}
