// What clients are told of limits.

package import LinuxIO
package import Primitives

/// The response fields of limits (IETF draft-ietf-httpapi-ratelimit-headers).
package struct RateLimitFields: Sendable {
    /// `"name";q=100;w=1` of each policy, or `"name";q=100;qu="concurrent-requests"`.
    private let policyItems: [[UInt8]]
    /// `"name"` of each policy.
    private let names: [[UInt8]]
    private let limits: [Int]
    /// Whether `X-RateLimit-*` is written too.
    package let isLegacy: Bool

    package init(_ policies: [Policy], legacy: Bool = false) {
        isLegacy = legacy
        limits = policies.map(\.limit)
        policyItems = policies.map { policy in
            switch policy.form {
            case .window, .buckets:
                Array("\"\(policy.name)\";q=\(policy.limit);w=\(max(1, wholeSeconds(policy.window)))".utf8)
            case .leases: Array("\"\(policy.name)\";q=\(policy.limit);qu=\"concurrent-requests\"".utf8)
            }
        }
        names = policies.map { Array("\"\($0.name)\"".utf8) }
    }

    /// Writes the fields of a refusal by the only policy there is. Seconds are rounded up: a client that waits as told
    /// must not come too early.
    package func write(retryAfter: TimeSpan, to output: inout ByteBuffer) {
        let seconds = max(1, wholeSeconds(retryAfter))
        appendRetryAfter(seconds, to: &output)
        output.append("RateLimit-Policy: ")
        let item = policyItems[0]
        output.append(item.span)
        output.append("\r\nRateLimit: ")
        appendItem(0, remaining: 0, seconds: seconds, to: &output)
        output.append("\r\n")
    }

    /// Writes what the policies said of a request. Nobody is told of those in shadow mode.
    ///
    /// - Parameter others: what a backend says of its own limits, behind the gateway's.
    package func write(_ report: PolicyReport, others: OtherLimits = OtherLimits(), to output: inout ByteBuffer) {
        var count = 0
        var seconds = 0
        for index in 0..<report.count where !report[index].isShadow {
            output.append(count == 0 ? "RateLimit-Policy: " : ", ")
            let item = policyItems[Int(report[index].policy)]
            output.append(item.span)
            count += 1
            if report[index].isRefused { seconds = max(seconds, Int(report[index].seconds)) }
        }
        guard count > 0 else { return }
        for item in others.policies {
            output.append(", ")
            output.append(item)
        }
        output.append("\r\n")
        count = 0
        for index in 0..<report.count where !report[index].isShadow {
            guard let remaining = report.remaining(index) else { continue }
            let item = report[index]
            output.append(count == 0 ? "RateLimit: " : ", ")
            appendItem(
                Int(item.policy), remaining: remaining, seconds: item.isRefused ? Int(item.seconds) : nil, to: &output)
            count += 1
        }
        for item in others.limits {
            output.append(count == 0 ? "RateLimit: " : ", ")
            output.append(item)
            count += 1
        }
        if count > 0 { output.append("\r\n") }
        if report.isRefused { appendRetryAfter(seconds, to: &output) }
        if isLegacy { appendLegacy(report, to: &output) }
    }

    /// Whether `write` writes anything of what the policies said.
    package func writes(_ report: PolicyReport) -> Bool {
        for index in 0..<report.count where !report[index].isShadow { return true }
        return false
    }

    /// Whether a policy of the gateway has this name.
    package func names(_ name: Span<UInt8>) -> Bool {
        for own in names where own.count == name.count + 2 {
            var same = 0
            while same < name.count, own[same + 1] == name[same] { same += 1 }
            if same == name.count { return true }
        }
        return false
    }

    /// Whether `write` writes `X-RateLimit-*` of what the policies said.
    package func writesLegacy(_ report: PolicyReport) -> Bool {
        guard isLegacy else { return false }
        for index in 0..<report.count where !report[index].isShadow && report.remaining(index) != nil { return true }
        return false
    }

    /// One policy is all that these fields can name: of those that refused the one to wait longest for, else the one
    /// with the least left. `X-RateLimit-Reset` is in seconds from now, and only known of a refusal.
    private func appendLegacy(_ report: PolicyReport, to output: inout ByteBuffer) {
        var chosen: (item: PolicyReport.Item, remaining: Int)?
        for index in 0..<report.count where !report[index].isShadow {
            guard let remaining = report.remaining(index) else { continue }
            let item = report[index]
            guard let best = chosen else {
                chosen = (item, remaining)
                continue
            }
            if item.isRefused
                ? !best.item.isRefused || item.seconds > best.item.seconds
                : !best.item.isRefused && remaining < best.remaining
            {
                chosen = (item, remaining)
            }
        }
        guard let (chosen, remaining) = chosen else { return }
        output.append("X-RateLimit-Limit: ")
        output.append(decimal: limits[Int(chosen.policy)])
        output.append("\r\nX-RateLimit-Remaining: ")
        output.append(decimal: remaining)
        if chosen.isRefused {
            output.append("\r\nX-RateLimit-Reset: ")
            output.append(decimal: Int(chosen.seconds))
        }
        output.append("\r\n")
    }

    private func appendRetryAfter(_ seconds: Int, to output: inout ByteBuffer) {
        output.append("Retry-After: ")
        output.append(decimal: seconds)
        output.append("\r\n")
    }

    private func appendItem(_ policy: Int, remaining: Int, seconds: Int?, to output: inout ByteBuffer) {
        let name = names[policy]
        output.append(name.span)
        output.append(";r=")
        output.append(decimal: remaining)
        guard let seconds else { return }
        output.append(";t=")
        output.append(decimal: seconds)
    }

    /// Writes `,"violated-policies":["a","b"]`: a member of the problem. `nil` stands for the only policy there is.
    package func writeViolated(_ report: PolicyReport?, to output: inout ByteBuffer) {
        output.append(",\"violated-policies\":[")
        if let report {
            var count = 0
            for index in 0..<report.count where report[index].isRefused && !report[index].isShadow {
                if count > 0 { output.append(",") }
                let name = names[Int(report[index].policy)]
                output.append(name.span)
                count += 1
            }
        } else {
            let name = names[0]
            output.append(name.span)
        }
        output.append("]")
    }
}
