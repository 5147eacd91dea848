// Which policies cover a request, and whom each of them counts.

import Configuration
import HTTP1
import Identity
import Primitives
import RateLimiting

struct PolicyTable: Sendable {
    /// A policy, for one service.
    private struct Rule: Sendable {
        var policy: UInt8
        var key: PolicyKey
        /// The header's name, in bytes of lower case.
        var header: [UInt8]
        /// The paths that it covers; `nil` for all. Compared as routes are, with encoded slashes as slashes: no spelling
        /// of a path that any backend may take for one of them leads past its limit.
        var paths: RouteTable?
    }

    /// By service.
    private let rules: [[Rule]]

    /// - Parameters:
    ///   - policies: in the order of their numbers.
    ///   - scopes: what each covers.
    init(_ policies: [Policy], scopes: [Configuration.PolicyScope], services: [String]) {
        rules = services.map { service in
            policies.indices.compactMap { index in
                let scope = scopes[index]
                guard scope.services.isEmpty || scope.services.contains(service) else { return nil }
                let header: [UInt8]
                switch policies[index].key {
                case .header(let name): header = Array(name.utf8)
                case .ip, .service, .global: header = []
                }
                let prefixes = scope.paths.map { path in Array((path == "/" ? "" : path).utf8) }
                return Rule(
                    policy: UInt8(clamping: index), key: policies[index].key, header: header,
                    paths: prefixes.isEmpty ? nil : RouteTable(prefixes: prefixes, reading: .decoded))
            }
        }
    }

    /// Replaces `list` by the subjects of a request, each of another policy.
    func collect(
        _ head: borrowing RequestHead, _ bytes: Span<UInt8>, service: Int, client: IPAddress,
        into list: inout [SubjectKey]
    ) {
        list.removeAll(keepingCapacity: true)
        for index in rules[service].indices {
            if let paths = rules[service][index].paths, paths.service(of: bytes.extracting(head.path)) == nil {
                continue
            }
            let policy = rules[service][index].policy
            switch rules[service][index].key {
            case .ip: list.append(SubjectKey(client, policy: policy))
            case .service: list.append(SubjectKey(service: service, policy: policy))
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
