// Limits by several policies.

import EventLoop
import Identity
import LinuxIO
import RateLimiting
import Transforms

/// What nobody has written down as a standard: `X-RateLimit-Limit`, `-Remaining`, `-Reset`, `-Used`, …
private let legacyLimits = FoldedNames([], prefixes: ["x-ratelimit-"])

extension ClientConnection {
    /// Asks all policies that cover the request; the worker holds its subjects.
    func limitByAll() {
        guard !worker.subjects.isEmpty else {
            dispatch()
            return
        }
        limiterEra = worker.limiterEra
        if let limiter = worker.limiter {
            switch limiter.check(all: worker.subjects, costs: worker.costs, requester: self, token: exchange) {
            case .decided(let report): decided(report)
            case .pending: phase = .deciding
            }
        } else if let store = worker.tokenBuckets {
            decided(worker.takeHere(store))
        } else {
            dispatch()
        }
    }

    /// The policies' answer to a request that had to wait for it.
    package func limitsDecided(token: UInt64, _ report: PolicyReport) {
        guard phase == .deciding, token == exchange else {
            // The client has gone meanwhile.
            if report.lease >= 0 { worker.release(Lease(place: report.lease, era: limiterEra)) }
            return
        }
        decided(report)
        if phase == .exchanging { flushOutbound() }
        // The body, or the next request, may be here already.
        if phase != .closed { takeUp() }
    }

    /// How limits are told: as they were when they decided, for a report speaks of policies by their numbers.
    var limitFields: RateLimitFields? { lane?.node.rateLimitFields }

    /// The request does not run any more.
    func releaseLease() {
        let ended = Lease(place: lease, era: limiterEra)
        lease = -1
        worker.release(ended)
    }

    /// Adds what the policies said to the head of an answer, where clients are told.
    func appendLimits(to output: inout ByteBuffer) {
        guard wasLimited, let node = lane?.node, node.tellsLimits else { return }
        node.rateLimitFields?.write(limitReport, to: &output)
    }

    private var wasLimited: Bool { limiterOutcome == .admitted || limiterOutcome == .refusedInShadow }

    /// Takes a backend's own `X-RateLimit-*` out of an answer whose head begins at `start` of `output` and ends it, where
    /// the gateway writes these fields: of two values a client would go by either.
    @inline(never)
    func dropLegacyLimits(from start: Int, _ output: inout ByteBuffer) {
        guard wasLimited, limitFields?.writesLegacy(limitReport) == true,
            hasLine(output.bytes.extracting(start..<output.count), of: legacyLimits)
        else { return }
        var head = ByteBuffer()
        head.append(output.bytes.extracting(start..<output.count))
        output.truncate(to: start)
        copyHead(head.bytes, dropping: legacyLimits, to: &output)
    }

    /// Whoever is counted, the client is who has to hear of it.
    private func noteRefusal(_ report: PolicyReport) {
        for index in 0..<report.count where report[index].isRefused && !report[index].isShadow {
            worker.node.refused[worker.index].count(SubjectKey(client, policy: report[index].policy))
        }
    }

    private func decided(_ report: PolicyReport) {
        if report.isRefused {
            limiterOutcome = .refused
            worker.report = report
            noteRefusal(report)
            refuse(.policiesExceeded)
        } else {
            limiterOutcome = report.isRefusedInShadow ? .refusedInShadow : .admitted
            limitReport = report
            if report.lease >= 0 { lease = report.lease }
            dispatch()
        }
    }
}
