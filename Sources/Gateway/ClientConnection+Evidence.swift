// What an exchange says of its backend, once: a success when the answer is whole, a failure when it has a status that
// blames the backend or breaks off. A head alone is no success: a backend that breaks off every answer behind it would look
// half well to a share of failures, and wholly well to failures in a row.
//
// Rejected: a success at the head that is taken back. Failures in a row cannot be taken up again where they were.

import Configuration
import EventLoop
import Health
import Primitives

extension ClientConnection {
    /// The backend has done its part: the answer is whole, or has switched protocols, or waits for a client that leaves.
    @inline(__always)
    func backendDelivered() {
        if isTrial { endTrial(.succeeded, "the trial was answered with \(status)") }
        if !isJudged { succeeded() }
    }

    /// Bytes have come of an answer that is not whole yet.
    @inline(__always)
    func answerGoesOn() {
        if loop.now - answeredAt >= DataPathLimits.standingAnswerTime { succeeded() }
    }

    private func succeeded() {
        guard let service else { return }
        isJudged = true
        worker.backendSucceeded(service, backendIndex)
    }

    /// The backend has let the exchange down.
    func blameBackend(_ service: Service, _ fault: BackendFault) {
        if isTrial {
            let text = responseStarted ? "the answer to the trial, \(status), broke off" : "the trial had no answer"
            endTrial(.failed, text)
        }
        worker.report(
            service, backendIndex, fault, isCounted: responseStarted && BackendFault.isBlamed(for: status))
    }
}
