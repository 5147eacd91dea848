// A request that tries a backend whose breaker is half-open. It waits for the control loop's word that it is the one of the
// whole cluster, a round trip to Redis; where it is not, it goes where any request goes.

import EventLoop
import Primitives

extension ClientConnection {
    /// Whether the request waits to hear whether it is the trial of a backend.
    func asksForTrial(_ service: Service) -> Bool {
        guard let backend = worker.trialToAsk(service) else { return false }
        phase = .deciding
        worker.askForTrial(TrialAsk(client: self, exchange: exchange, backend: backend), service)
        return true
    }

    func trialDecided(_ ask: TrialAsk, granted: Bool) {
        guard phase == .deciding, exchange == ask.exchange, let service else {
            // It has gone meanwhile, and nobody has tried.
            if granted { worker.endTrial(ask.service, ask.backend, succeeded: false, status: 0) }
            return
        }
        if granted {
            isTrial = true
            // A connection from the pool may be one that the backend has closed long ago, which would say nothing.
            connect(ask.backend, fresh: true)
        } else {
            pickAndConnect(service)
        }
        if phase == .exchanging { flushOutbound() }
        // The body, or the next request, may be here already.
        if phase != .closed { stream.wakeSoon() }
    }

    /// The trial's outcome is known.
    func endTrial(succeeded: Bool) {
        guard isTrial, let service else { return }
        isTrial = false
        worker.endTrial(service.index, backendIndex, succeeded: succeeded, status: status)
    }
}

/// A request that waits for the word on its trial.
struct TrialAsk {
    weak var client: ClientConnection?
    var exchange: UInt64
    var backend: Int
    var service = 0
}

/// The trials that a worker's requests ask for: one at a time for each service.
struct TrialAsks {
    private var asked: [TrialAsk?]
    private var notBefore: [MonotonicTime]

    init(services: Int) {
        asked = Array(repeating: nil, count: services)
        notBefore = Array(repeating: MonotonicTime(nanoseconds: .min), count: services)
    }

    func mayAsk(_ service: Int, at now: MonotonicTime) -> Bool { asked[service] == nil && notBefore[service] <= now }

    mutating func ask(_ ask: TrialAsk, _ service: Int) {
        asked[service] = ask
        asked[service]?.service = service
    }

    mutating func answered(_ service: Int, granted: Bool, at now: MonotonicTime) -> TrialAsk? {
        if !granted { notBefore[service] = now + DataPathLimits.trialPause }
        defer { asked[service] = nil }
        return asked[service]
    }

    mutating func changed(_ service: Int) { notBefore[service] = MonotonicTime(nanoseconds: .min) }
}
