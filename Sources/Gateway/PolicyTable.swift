// Which policies cover a request, and whom each of them counts.

package import Configuration
import HTTP1
import Identity
import Primitives
package import RateLimiting

struct PolicyTable: Sendable {
    /// A policy, for one service.
    private struct Rule: Sendable {
        var policy: UInt8
        /// Those of callers of a tier, by its number; empty where all have one limit.
        var byTier: [UInt8]
        var key: PolicyKey
        /// The header's name, in bytes of lower case.
        var header: [UInt8]
        /// The paths that it covers; `nil` for all. Compared as routes are, with encoded slashes as slashes: no spelling
        /// of a path that any backend may take for one of them leads past its limit.
        var paths: RouteTable?
    }

    /// What requests cost.
    private struct Price: Sendable {
        var base: UInt16
        var methods: [(name: [UInt8], cost: UInt16)]
        /// The same paths in both readings, of which a request pays the dearer: an encoded slash must not make it cheaper.
        var paths: (asWritten: RouteTable, decoded: RouteTable)?
        /// By the places of `paths`.
        var pathCosts: [UInt16]
    }

    /// By service.
    private let rules: [[Rule]]
    /// Of each policy.
    private let prices: [Price]
    /// Whether any policy counts some requests as more than one, or as none.
    let isWeighted: Bool

    /// - Parameters:
    ///   - policies: in the order of their numbers, each before those that are its tiers'.
    ///   - scopes: what each covers.
    ///   - costs: what requests cost by each.
    ///   - tiers: their names, by their numbers.
    init(
        _ policies: [Policy], scopes: [Configuration.PolicyScope], costs: [Configuration.PolicyCost],
        services: [String],
        tiers: [String] = []
    ) {
        isWeighted = costs.contains { $0 != Configuration.PolicyCost() }
        prices = costs.map { cost in
            let paths = cost.paths.sorted { $0.key < $1.key }
            let prefixes = paths.map { path, _ in Array((path == "/" ? "" : path).utf8) }
            return Price(
                base: UInt16(clamping: cost.base),
                methods: cost.methods.map { (Array($0.key.utf8), UInt16(clamping: $0.value)) },
                paths: prefixes.isEmpty
                    ? nil : (RouteTable(prefixes: prefixes), RouteTable(prefixes: prefixes, reading: .decoded)),
                pathCosts: paths.map { UInt16(clamping: $0.value) })
        }
        rules = services.map { service in
            policies.indices.compactMap { index in
                guard policies[index].tier == nil else { return nil }
                var byTier: [UInt8] = []
                for other in policies.indices where policies[other].name == policies[index].name {
                    guard let tier = policies[other].tier.flatMap({ tiers.firstIndex(of: $0) }) else { continue }
                    if byTier.isEmpty { byTier = tiers.map { _ in UInt8(clamping: index) } }
                    byTier[tier] = UInt8(clamping: other)
                }
                let scope = scopes[index]
                guard scope.services.isEmpty || scope.services.contains(service) else { return nil }
                let header: [UInt8]
                switch policies[index].key {
                case .header(let name): header = Array(name.utf8)
                case .ip, .user, .org, .apiKey, .service, .global: header = []
                }
                let prefixes = scope.paths.map { path in Array((path == "/" ? "" : path).utf8) }
                return Rule(
                    policy: UInt8(clamping: index), byTier: byTier, key: policies[index].key, header: header,
                    paths: prefixes.isEmpty ? nil : RouteTable(prefixes: prefixes, reading: .decoded))
            }
        }
    }

    /// Replaces `list` by the subjects of a request, each of another policy.
    func collect(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, service: Int, client: IPAddress, caller: Caller? = nil,
        into list: inout [SubjectKey]
    ) {
        list.removeAll(keepingCapacity: true)
        for index in rules[service].indices {
            if let paths = rules[service][index].paths, paths.service(of: bytes.extracting(head.path)) == nil {
                continue
            }
            var policy = rules[service][index].policy
            if let caller, caller.tier >= 0, caller.tier < rules[service][index].byTier.count {
                policy = rules[service][index].byTier[caller.tier]
            }
            switch rules[service][index].key {
            case .ip: list.append(SubjectKey(client, policy: policy))
            case .service: list.append(SubjectKey(service: service, policy: policy))
            // Who shows no credential must not go free.
            case .user: list.append(caller?.user?.counted(by: policy) ?? SubjectKey(client, policy: policy))
            case .org: list.append(caller?.org?.counted(by: policy) ?? SubjectKey(client, policy: policy))
            case .apiKey: list.append(caller?.key?.counted(by: policy) ?? SubjectKey(client, policy: policy))
            case .global: list.append(SubjectKey(globalOf: policy))
            case .header:
                if let value = value(of: rules[service][index].header, head, bytes) {
                    list.append(SubjectKey(text: bytes.extracting(value), policy: policy))
                } else {
                    // Who leaves the header out must not go free.
                    list.append(SubjectKey(client, policy: policy))
                }
            }
        }
    }

    /// Replaces `costs` by what a request takes of each of its policies; policies that do not count it are left out.
    func weigh(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, _ list: inout [SubjectKey], into costs: inout [UInt16]
    ) {
        costs.removeAll(keepingCapacity: true)
        var kept = 0
        for index in list.indices {
            let cost = cost(of: head, bytes, policy: Int(list[index].policy))
            guard cost > 0 else { continue }
            costs.append(cost)
            list[kept] = list[index]
            kept += 1
        }
        list.removeLast(list.count - kept)
    }

    private func cost(of head: borrowing RequestHead, _ bytes: Span<UInt8>, policy: Int) -> UInt16 {
        var most: UInt16?
        for index in prices[policy].methods.indices where Self.isSame(prices[policy].methods[index].name, head, bytes) {
            most = prices[policy].methods[index].cost
        }
        guard let paths = prices[policy].paths else { return most ?? prices[policy].base }
        let path = bytes.extracting(head.path)
        return max(
            cost(policy, method: most, place: paths.asWritten.service(of: path)?.service),
            cost(policy, method: most, place: paths.decoded.service(of: path)?.service))
    }

    private func cost(_ policy: Int, method: UInt16?, place: Int?) -> UInt16 {
        guard let place else { return method ?? prices[policy].base }
        return max(method ?? 0, prices[policy].pathCosts[place])
    }

    private static func isSame(_ name: [UInt8], _ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> Bool {
        guard head.methodBytes.count == name.count else { return false }
        for i in 0..<name.count where bytes[head.methodBytes.lowerBound + i] != name[i] { return false }
        return true
    }

    private func value(of name: [UInt8], _ head: borrowing RequestHead, _ bytes: Span<UInt8>) -> Range<Int>? {
        for index in 0..<head.fields.count {
            let field = head.fields[index]
            guard field.name.count == name.count, !field.value.isEmpty else { continue }
            var isSame = true
            for i in 0..<name.count {
                let byte = bytes[field.name.lowerBound + i]
                let lower = byte >= 0x41 && byte <= 0x5a ? byte | 0x20 : byte
                if lower != name[i] {
                    isSame = false
                    break
                }
            }
            if isSame { return field.value }
        }
        return nil
    }
}

extension PolicyKey {
    package init(_ key: Configuration.PolicyKey) {
        self =
            switch key {
            case .ip: .ip
            case .service: .service
            case .global: .global
            case .user: .user
            case .org: .org
            case .apiKey: .apiKey
            case .header(let name): .header(name)
            }
    }
}
