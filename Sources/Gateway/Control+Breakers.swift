// The circuit breakers between the workers, Redis and the balancers.

import Balancing
import Configuration
import EventLoop
import Health
import Logging
import Primitives

extension Control {
    func watchBreakers() {
        breakers.keep(only: Set(node.services.flatMap { $0.backends.map(\.key) }))
        for service in node.services {
            var settings = BreakerSettings()
            settings.failures = service.settings.circuitBreaker.failures
            settings.openFor = service.settings.circuitBreaker.openFor
            let timeouts = service.settings.timeouts
            settings.trialMax =
                timeouts.connect + (timeouts.response ?? .seconds(300)) + DataPathLimits.trialAnswerTime + .seconds(1)
            if let limit = generation.configuration.rateLimit { settings.claimMax = limit.timeout }
            for backend in service.backends {
                breakers.watch(BackendKey(service: service.settings.name, url: backend.url), settings)
            }
        }
    }

    func breakerFailed(_ key: BackendKey, _ fault: BackendFault, _ failure: HealthFailure) {
        let reached =
            switch fault {
            case .refused, .connectTimeout: false
            case .reset, .responseTimeout, .malformed, .serverError: true
            }
        breakers.failed(key, reached: reached, evidence: "\(failure)", at: loop.now, into: &breakerActions)
        performBreakers()
    }

    func breakerSucceeded(_ key: BackendKey) {
        let usedOpen = breakers.state(of: key, at: loop.now) != .closed && isSpared(key.service)
        breakers.succeeded(key, usedOpen: usedOpen, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    func breakerReachedAgain(_ key: BackendKey) {
        breakers.reachedAgain(key, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    /// Whether a service uses backends with open breakers, because it has no other.
    private func isSpared(_ name: String) -> Bool {
        guard let service = node.services.first(where: { $0.settings.name == name }) else { return false }
        return service.settings.circuitBreaker.spareLast && !service.backends.contains { isUsable(service, $0) }
    }

    private func isUsable(_ service: Service, _ backend: Backend) -> Bool {
        let key = BackendKey(service: service.settings.name, url: backend.url)
        return health.condition(of: key)?.isAvailable ?? true && breakers.state(of: key, at: loop.now) == .closed
    }

    /// Whether requests may go to a backend, breakers and all.
    func mayUse(_ service: Service) -> (Backend) -> Bool {
        let spared = isSpared(service.settings.name)
        return { [self] backend in
            let key = BackendKey(service: service.settings.name, url: backend.url)
            guard health.condition(of: key)?.isAvailable ?? true else { return false }
            // An operator who holds a backend up means it.
            return spared || breakers.state(of: key, at: loop.now) == .closed || health.isHeldUp(key)
        }
    }

    /// The backends of a service that wait for a trial.
    func trials(_ service: Service) -> [Int] {
        service.backends.compactMap { backend in
            let key = BackendKey(service: service.settings.name, url: backend.url)
            guard breakers.state(of: key, at: loop.now) == .halfOpen, !health.isHeldUp(key),
                health.condition(of: key)?.isAvailable ?? true
            else { return nil }
            return backend.index
        }
    }

    func performBreakers() {
        while !breakerActions.isEmpty {
            let now = breakerActions
            breakerActions.removeAll(keepingCapacity: true)
            for action in now { perform(action) }
        }
        let next = breakers.nextDeadline
        if next < .distantFuture { breakerTimer.schedule(at: max(next, loop.now)) }
    }

    private func perform(_ action: BreakerAction) {
        switch action {
        case .publish(let news): link?.publish(news)
        case .claim(let key, let number, let lifetime):
            if let link {
                link.claim(key, number: number, lifetime: lifetime)
            } else {
                claimAnswered(key, number, won: nil)
            }
        case .release(let key, let number): link?.release(key, number: number)
        case .answer(let key, let granted): answerTrial(key, granted)
        case .changed(let key, let state, let evidence):
            let text = "the breaker of \(key.url) of \(key.service) is \(state.rawValue): \(evidence)"
            switch state {
            case .open: logger.warning("\(text)")
            case .halfOpen, .closed: logger.notice("\(text)")
            }
            if let service = node.services.first(where: { $0.settings.name == key.service }) { postBalancer(service) }
        }
    }

    func breakerTick() {
        breakers.tick(at: loop.now, into: &breakerActions)
        performBreakers()
    }

    // MARK: Trials

    /// A worker has a request for a trial of this backend.
    func trialWanted(_ key: BackendKey, worker: Int) {
        trialAskers[key, default: []].append(worker)
        breakers.wanted(key, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    /// The first who asked gets the trial.
    private func answerTrial(_ key: BackendKey, _ granted: Bool) {
        guard var askers = trialAskers[key], !askers.isEmpty else { return }
        let worker = askers.removeFirst()
        trialAskers[key] = askers.isEmpty ? nil : askers
        workers[worker].post(.trial(key, granted: granted))
    }

    func trialEnded(_ key: BackendKey, _ outcome: TrialOutcome, _ evidence: String) {
        breakers.trialEnded(key, outcome, evidence: evidence, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    // MARK: Redis

    func claimAnswered(_ key: BackendKey, _ number: UInt64, won: Bool?) {
        breakers.claimed(key, number: number, won: won, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    func breakerNews(_ news: BreakerNews) {
        breakers.heard(news, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    func breakerSnapshot(service: String, _ news: [BreakerNews]) {
        breakers.read(news, service: service, at: loop.now, into: &breakerActions)
        performBreakers()
    }

    func breakersJoined(_ joined: Bool) {
        breakers.joined(joined, at: loop.now, into: &breakerActions)
        performBreakers()
    }
}
