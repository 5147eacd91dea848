// The circuit breakers of all backends, shared by the cluster.
//
// A backend's breaker has one number for the whole cluster, which only grows: even is closed, odd is open. Whoever sees
// enough failures in a row makes the next odd number of it and tells; two who do so at once make the same one. The
// higher number wins, so news may be lost, late, repeated or out of order. After `openFor` the breaker is half-open:
// one request of the whole cluster may try. Who sends it is decided by a key in Redis that belongs to this number and
// that only one node can set; its outcome makes the next number, even or odd. A trial that says nothing of the backend,
// since its client has gone, leaves the number as it is and gives the key back: the next request is the next trial.
//
// What never reached the backend (a refused connection, a connect timeout) opens the breaker of this node alone: the
// path may be what is broken. The others find that out for themselves. Without Redis each node has its own trial.
//
// Rejected: a trial by whoever rendezvous hashing picks. It may have no request to try with, and then nobody tries.

package import Primitives

/// How many failures open a breaker, and for how long.
package struct BreakerSettings: Hashable, Sendable {
    package var failures = 5
    package var openFor = TimeSpan.seconds(30)
    /// The longest that a trial may take; a claim that is older has been forgotten by a node that died.
    package var trialMax = TimeSpan.seconds(60)
    /// The longest that a request waits for Redis's word on its trial.
    package var claimMax = TimeSpan.seconds(1)

    package init() {}
}

package enum BreakerState: String, CaseIterable, Sendable {
    case closed, open
    case halfOpen = "half-open"
}

/// What a trial has come to.
package enum TrialOutcome: Hashable, Sendable {
    case succeeded, failed
    /// It says nothing of the backend.
    case void
}

package enum BreakerAction: Equatable, Sendable {
    /// Tell the others, and write it down.
    case publish(BreakerNews)
    /// Set the key of this number if nobody has, for this long; tell by `BreakerMachine.claimed`.
    case claim(BackendKey, number: UInt64, lifetime: TimeSpan)
    /// Take away the key of this number, which this node has set: its trial has come to nothing.
    case release(BackendKey, number: UInt64)
    /// Whoever asked for a trial has it, or does not.
    case answer(BackendKey, granted: Bool)
    case changed(BackendKey, BreakerState, evidence: String)
}

/// The number of a breaker, as it is told.
package struct BreakerNews: Hashable, Sendable {
    package var backend: BackendKey
    package var number: UInt64
    package var evidence: String

    package init(backend: BackendKey, number: UInt64, evidence: String) {
        self.backend = backend
        self.number = number
        self.evidence = evidence
    }

    /// Beyond it a number is not believed: the way there is longer than any cluster lives.
    package static let numberMax: UInt64 = 1 << 52
}

package struct BreakerMachine: Sendable {
    /// A claim outlives the longest trial by so long that all have heard how it ended, even where the news was lost and
    /// only the second reading of the hash finds it.
    private static let claimSlack = HealthMachine.rereadInterval * 2 + .seconds(5)

    private enum Trial {
        case none
        /// The claim is on its way to Redis, and a request waits for it.
        case asked(until: MonotonicTime)
        /// Redis takes longer than the request could wait.
        case late
        /// The claim was won too late: the next request here need not ask.
        case held(until: MonotonicTime)
        /// `claimed`: the key of the number is this node's.
        case running(until: MonotonicTime, claimed: Bool)
    }

    private struct Breaker {
        var settings: BreakerSettings
        var number: UInt64 = 0
        /// Open by this node's own evidence of its path.
        var isOpenHere = false
        var failuresInRow = 0
        /// Failures in a row that did not reach the backend.
        var unreachedInRow = 0
        var halfOpenAt = MonotonicTime(nanoseconds: .min)
        var trial = Trial.none
        /// Somebody else has the trial of this number; ask again then.
        var refusedUntil = MonotonicTime(nanoseconds: .min)
        var told = BreakerState.closed
        var changes: UInt64 = 0

        var isOpen: Bool { isOpenHere || number % 2 == 1 }
    }

    private var breakers: [BackendKey: Breaker] = [:]
    private var isJoined = false

    package init() {}

    // MARK: Configuration

    package mutating func watch(_ key: BackendKey, _ settings: BreakerSettings) {
        if breakers[key] == nil {
            breakers[key] = Breaker(settings: settings)
        } else {
            breakers[key]?.settings = settings
        }
    }

    // MARK: What is

    /// Forgets all breakers but these.
    package mutating func keep(only keys: Set<BackendKey>) { breakers = breakers.filter { keys.contains($0.key) } }

    package func state(of key: BackendKey, at now: MonotonicTime) -> BreakerState {
        guard let breaker = breakers[key], breaker.isOpen else { return .closed }
        return breaker.halfOpenAt <= now ? .halfOpen : .open
    }

    package func changes(of key: BackendKey) -> UInt64 { breakers[key]?.changes ?? 0 }

    /// When `tick` has something to tell.
    package var nextDeadline: MonotonicTime {
        var next = MonotonicTime.distantFuture
        for breaker in breakers.values where breaker.isOpen {
            if breaker.told == .open { next = min(next, breaker.halfOpenAt) }
            switch breaker.trial {
            case .none, .late: break
            case .asked(let until), .held(let until), .running(let until, _): next = min(next, until)
            }
        }
        return next
    }

    package mutating func tick(at now: MonotonicTime, into actions: inout [BreakerAction]) {
        for (key, breaker) in breakers where breaker.isOpen {
            trialTick(key, breaker, now, &actions)
            tell(key, "time has passed", now, &actions)
        }
    }

    private mutating func trialTick(
        _ key: BackendKey, _ breaker: Breaker, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        switch breaker.trial {
        case .asked(let until) where until <= now:
            breakers[key]?.trial = .late
            actions.append(.answer(key, granted: false))
        case .held(let until) where until <= now:
            breakers[key]?.trial = .none
            actions.append(.release(key, number: breaker.number))
        case .running(let until, _) where until <= now:
            // The backend's own times are shorter: the client takes so long, or nobody bounds the backend.
            trialEnded(key, .void, evidence: "", at: now, into: &actions)
        case .none, .asked, .late, .held, .running: break
        }
    }

    // MARK: Evidence

    /// A request has failed. `reached`: the backend had it, so that nothing but the backend can be to blame.
    package mutating func failed(
        _ key: BackendKey, reached: Bool, evidence: String, at now: MonotonicTime, into actions: inout [BreakerAction]
    ) {
        guard var breaker = breakers[key] else { return }
        breaker.failuresInRow += reached ? 1 : 0
        breaker.unreachedInRow += 1
        let enough = max(1, breaker.settings.failures)
        breakers[key] = breaker
        guard !breaker.isOpen else { return }
        if breaker.failuresInRow >= enough {
            open(key, "\(breaker.failuresInRow) failed requests in a row: \(evidence)", now, &actions)
        } else if breaker.unreachedInRow >= enough {
            breakers[key]?.isOpenHere = true
            breakers[key]?.halfOpenAt = now + breaker.settings.openFor
            tell(key, "this node alone: \(breaker.unreachedInRow) failed requests in a row: \(evidence)", now, &actions)
        }
    }

    /// A request has succeeded. `usedOpen`: the backend was used although its breaker is open, as the last one left.
    package mutating func succeeded(
        _ key: BackendKey, usedOpen: Bool, at now: MonotonicTime, into actions: inout [BreakerAction]
    ) {
        breakers[key]?.failuresInRow = 0
        breakers[key]?.unreachedInRow = 0
        if usedOpen { close(key, "a successful request", now, &actions) }
    }

    /// This node's probes reach the backend again: its path, which alone had opened the breaker here, is whole.
    package mutating func reachedAgain(_ key: BackendKey, at now: MonotonicTime, into actions: inout [BreakerAction]) {
        guard let breaker = breakers[key] else { return }
        breakers[key]?.unreachedInRow = 0
        guard breaker.isOpenHere else { return }
        breakers[key]?.isOpenHere = false
        if breaker.number % 2 == 0 { dropTrial(key, &actions) }
        tell(key, "probes reach it again", now, &actions)
    }

    private mutating func open(
        _ key: BackendKey, _ evidence: String, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key] else { return }
        let next = breaker.number + (breaker.number % 2 == 0 ? 1 : 2)
        if next <= BreakerNews.numberMax {
            set(key, next, now, &actions)
            publish(key, evidence, &actions)
        } else {
            // Only a forged number leaves none behind it: each node is alone with this backend from here on.
            breakers[key]?.isOpenHere = true
            dropTrial(key, &actions)
            breakers[key]?.halfOpenAt = now + breaker.settings.openFor
        }
        tell(key, evidence, now, &actions)
    }

    private mutating func close(
        _ key: BackendKey, _ evidence: String, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key], breaker.isOpen else { return }
        breakers[key]?.isOpenHere = false
        if breaker.number % 2 == 1 {
            set(key, breaker.number + 1, now, &actions)
            publish(key, evidence, &actions)
        } else {
            dropTrial(key, &actions)
        }
        breakers[key]?.failuresInRow = 0
        breakers[key]?.unreachedInRow = 0
        tell(key, evidence, now, &actions)
    }

    private mutating func set(
        _ key: BackendKey, _ number: UInt64, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key] else { return }
        dropTrial(key, &actions)
        breakers[key]?.number = number
        breakers[key]?.refusedUntil = MonotonicTime(nanoseconds: .min)
        breakers[key]?.halfOpenAt = now + breaker.settings.openFor
        if number % 2 == 0 { breakers[key]?.failuresInRow = 0 }
    }

    /// The trial of this number is nobody's business any more. Who waits for the word on it goes elsewhere.
    private mutating func dropTrial(_ key: BackendKey, _ actions: inout [BreakerAction]) {
        if case .asked = breakers[key]?.trial { actions.append(.answer(key, granted: false)) }
        breakers[key]?.trial = .none
    }

    private func publish(_ key: BackendKey, _ evidence: String, _ actions: inout [BreakerAction]) {
        guard isJoined, let breaker = breakers[key] else { return }
        actions.append(.publish(BreakerNews(backend: key, number: breaker.number, evidence: evidence)))
    }

    private mutating func tell(
        _ key: BackendKey, _ evidence: String, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        let state = state(of: key, at: now)
        guard let told = breakers[key]?.told, told != state else { return }
        breakers[key]?.told = state
        breakers[key]?.changes &+= 1
        actions.append(.changed(key, state, evidence: evidence))
    }

    // MARK: The trial

    /// A request wants to try. `answer` follows, at once or when Redis has decided, at the latest after `claimMax`.
    package mutating func wanted(
        _ key: BackendKey, at now: MonotonicTime, into actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key], breaker.isOpen, breaker.halfOpenAt <= now, breaker.refusedUntil <= now else {
            actions.append(.answer(key, granted: false))
            return
        }
        switch breaker.trial {
        case .none: break
        case .held:
            grant(key, claimed: true, now, &actions)
            return
        case .asked, .late, .running:
            actions.append(.answer(key, granted: false))
            return
        }
        guard isJoined, breaker.number % 2 == 1 else {
            grant(key, claimed: false, now, &actions)
            return
        }
        breakers[key]?.trial = .asked(until: now + breaker.settings.claimMax)
        actions.append(
            .claim(
                key, number: breaker.number,
                lifetime: breaker.settings.openFor + breaker.settings.trialMax + Self.claimSlack))
    }

    private mutating func grant(
        _ key: BackendKey, claimed: Bool, _ now: MonotonicTime, _ actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key] else { return }
        breakers[key]?.trial = .running(until: now + breaker.settings.trialMax, claimed: claimed)
        actions.append(.answer(key, granted: true))
    }

    /// Whether the key could be set; `nil` where Redis did not say.
    package mutating func claimed(
        _ key: BackendKey, number: UInt64, won: Bool?, at now: MonotonicTime, into actions: inout [BreakerAction]
    ) {
        // It has been closed or opened anew meanwhile: a claim that was won belongs to the past, and nobody waits for it.
        guard let breaker = breakers[key], breaker.number == number else { return }
        let isAwaited: Bool
        switch breaker.trial {
        case .asked: isAwaited = true
        case .late: isAwaited = false
        case .none, .held, .running: return
        }
        guard won == true else {
            breakers[key]?.trial = .none
            breakers[key]?.refusedUntil = now + (won == nil ? .milliseconds(100) : breaker.settings.openFor)
            if isAwaited { actions.append(.answer(key, granted: false)) }
            return
        }
        if isAwaited {
            grant(key, claimed: true, now, &actions)
        } else {
            // Whom Redis has refused meanwhile asks no sooner than that.
            breakers[key]?.trial = .held(until: now + breaker.settings.openFor)
        }
    }

    /// The trial that this node had is over.
    package mutating func trialEnded(
        _ key: BackendKey, _ outcome: TrialOutcome, evidence: String, at now: MonotonicTime,
        into actions: inout [BreakerAction]
    ) {
        guard let breaker = breakers[key], case .running(_, let claimed) = breaker.trial else { return }
        switch outcome {
        case .succeeded: close(key, evidence, now, &actions)
        case .void:
            breakers[key]?.trial = .none
            if claimed { actions.append(.release(key, number: breaker.number)) }
        case .failed:
            if breaker.number % 2 == 1 {
                breakers[key]?.told = .halfOpen
                open(key, evidence, now, &actions)
            } else {
                breakers[key]?.trial = .none
                breakers[key]?.halfOpenAt = now + breaker.settings.openFor
                tell(key, evidence, now, &actions)
            }
        }
    }

    // MARK: The others

    package mutating func heard(_ news: BreakerNews, at now: MonotonicTime, into actions: inout [BreakerAction]) {
        guard news.number <= BreakerNews.numberMax, let breaker = breakers[news.backend],
            news.number > breaker.number
        else { return }
        set(news.backend, news.number, now, &actions)
        if news.number % 2 == 0 { breakers[news.backend]?.unreachedInRow = 0 }
        tell(news.backend, news.evidence, now, &actions)
    }

    /// What the hash of a service holds. What it does not know any more is written again.
    package mutating func read(
        _ all: [BreakerNews], service: String, at now: MonotonicTime, into actions: inout [BreakerAction]
    ) {
        var found: [BackendKey: UInt64] = [:]
        for news in all {
            heard(news, at: now, into: &actions)
            found[news.backend] = news.number
        }
        for (key, breaker) in breakers where key.service == service && breaker.number > 0 {
            if (found[key] ?? 0) < breaker.number { publish(key, "written again", &actions) }
        }
    }

    package mutating func joined(_ joined: Bool, at now: MonotonicTime, into actions: inout [BreakerAction]) {
        isJoined = joined
        guard !joined else { return }
        for (key, breaker) in breakers {
            switch breaker.trial {
            case .asked, .late: claimed(key, number: breaker.number, won: nil, at: now, into: &actions)
            case .none, .held, .running: break
            }
        }
    }
}
