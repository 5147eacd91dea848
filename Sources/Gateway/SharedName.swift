package import Configuration
import Membership
import Primitives

extension Configuration {
    /// A name for what must be the same on all nodes, equal on any two nodes where that is: everything but where each
    /// of them listens, writes its logs and finds Redis.
    package var sharedName: String {
        let shared: [Any] = [
            services, auth as Any, tracing as Any, gateway.timeout as Any, gateway.limits, gateway.trustedProxies,
            gateway.forwardedHeader, gateway.proxyProtocol, gateway.requestID as Any, gateway.via, gateway.drain,
            gateway.heartbeat,
            rateLimit.map { limit -> [Any] in
                [
                    limit.requestsPerSecond as Any, limit.burstSize as Any, limit.timeout, limit.onRedisLoss,
                    limit.headers, limit.legacyHeaders, limit.policies,
                ]
            } as Any,
        ]
        return BootID(stableHash(canonicalText(shared))).description
    }
}

/// A value as a text that is the same in every process: the order of a dictionary or a set is not, so theirs is made so.
private func canonicalText(_ value: Any) -> String {
    let mirror = Mirror(reflecting: value)
    let parts = mirror.children.map { "\($0.label ?? "")=\(canonicalText($0.value))" }
    switch mirror.displayStyle {
    case .dictionary, .set: return "{\(parts.sorted().joined(separator: "\u{1}"))}"
    case _ where parts.isEmpty: return String(describing: value)
    default: return "(\(parts.joined(separator: "\u{1}")))"
    }
}
