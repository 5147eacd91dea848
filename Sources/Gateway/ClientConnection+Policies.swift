// Limits by several policies.

import EventLoop
import Identity
import LinuxIO
import RateLimiting
import Transforms

/// The two fields whose items have names (IETF draft-ietf-httpapi-ratelimit-headers since version 8).
private let namedLimits = FoldedNames(["RateLimit", "RateLimit-Policy"])
private let policyLine = FoldedNames(["RateLimit-Policy"])
private let limitLine = FoldedNames(["RateLimit"])
/// These, and what says nobody's name: that of older drafts, and what nobody has written down as a standard, such as
/// `X-RateLimit-Limit`, `-Remaining`, `-Reset` and `-Used`.
private let allLimits = FoldedNames(
    ["RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset"],
    prefixes: ["X-RateLimit-", "X-Rate-Limit-"])

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

    /// Adds it to a head that begins at `start` of `output` and ends it, and may say something of limits: of a backend's own
    /// stays what no client can take for the gateway's.
    @inline(never)
    func tellLimits(besideOthersFrom start: Int, _ output: inout ByteBuffer) {
        guard wasLimited, let fields = limitFields, fields.writes(limitReport) else { return }
        let names = fields.writesLegacy(limitReport) ? allLimits : namedLimits
        var others = OtherLimits()
        if hasLine(output.bytes.extracting(start..<output.count), of: names) {
            var head = ByteBuffer()
            head.append(output.bytes.extracting(start..<output.count))
            others = otherLimits(in: head.bytes, beside: fields)
            output.truncate(to: start)
            copyHead(head.bytes, dropping: names, to: &output)
        }
        output.truncate(to: output.count - 2)
        fields.write(limitReport, others: others, to: &output)
        output.append("\r\n")
    }

    private func otherLimits(in head: Span<UInt8>, beside own: RateLimitFields) -> OtherLimits {
        var others = OtherLimits()
        var walk = LineWalk(behindStartLineOf: head)
        while walk.advance(in: head) {
            let name = head.extracting(walk.name)
            let value = head.extracting(walk.value(in: head))
            if limitLine.contains(name) { others.takeLimits(of: value, beside: own) }
            if policyLine.contains(name) { others.takePolicies(of: value, beside: own) }
        }
        return others
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
