// A request that tries a backend whose breaker is half-open. It waits for the control loop's word that it is the one of the
// whole cluster, a round trip to Redis; where it is not, it goes where any request goes.

import EventLoop
import Health
import Primitives

extension ClientConnection {
    /// Whether the request waits to hear whether it is the trial of a backend.
    func asksForTrial(_ lane: Lane) -> Bool {
        guard let backend = worker.trialToAsk(lane) else { return false }
        phase = .deciding
        worker.askForTrial(TrialAsk(client: self, exchange: exchange, backend: backend), lane)
        return true
    }

    func trialDecided(_ ask: TrialAsk, _ key: BackendKey, granted: Bool) {
        guard phase == .deciding, exchange == ask.exchange, let lane else {
            // It has gone meanwhile, and nobody has tried.
            if granted { worker.endTrial(key, .void) }
            return
        }
        if granted {
            isTrial = true
            // A connection from the pool may be one that the backend has closed long ago, which would say nothing.
            connect(lane, ask.backend, fresh: true)
        } else {
            pickAndConnect(lane)
        }
        if phase == .exchanging { flushOutbound() }
        // The body, or the next request, may be here already.
        if phase != .closed { takeUp() }
    }

    /// The head of the trial's answer is here.
    func trialAnswered() {
        guard !BackendFault.isBlamed(for: status) else {
            endTrial(.failed, "the trial was answered with \(status)")
            return
        }
        // Where the rest comes at once the timer does not live to see it.
        let timer = LoopTimer(loop) { [weak self, exchange] in
            guard let self, isTrial, self.exchange == exchange else { return }
            endTrial(.succeeded, "the trial was answered with \(status)")
        }
        trialTimer = timer
        timer.schedule(after: DataPathLimits.trialAnswerTime)
    }

    /// The trial's outcome is known.
    func endTrial(_ outcome: TrialOutcome, _ evidence: String = "") {
        guard isTrial, let service else { return }
        isTrial = false
        trialTimer?.cancel()
        trialTimer = nil
        worker.endTrial(service.backends[backendIndex].key, outcome, evidence)
    }
}

/// A request that waits for the word on its trial.
struct TrialAsk {
    weak var client: ClientConnection?
    var exchange: UInt64
    var backend: Int
}

/// The trials that a worker's requests ask for: one at a time for each service.
struct TrialAsks {
    private(set) var asked: TrialAsk?
    private var notBefore = MonotonicTime(nanoseconds: .min)

    func mayAsk(at now: MonotonicTime) -> Bool { asked == nil && notBefore <= now }

    mutating func ask(_ ask: TrialAsk) { asked = ask }

    mutating func answered(granted: Bool, at now: MonotonicTime) -> TrialAsk? {
        if !granted { notBefore = now + DataPathLimits.trialPause }
        defer { asked = nil }
        return asked
    }

    mutating func changed() { notBefore = MonotonicTime(nanoseconds: .min) }
}
