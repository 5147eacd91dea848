// `rateLimit.policies`: which keys a policy has, and what each may hold.

package import Primitives

extension Configuration.Policy {
    /// The policies of the section; those with an error are left out.
    static func list(_ map: MappingReader) -> [Configuration.Policy] {
        var policies: [Configuration.Policy] = []
        var names: [String: String] = [:]
        map.noteIfAbsent("policies", as: "[]")
        for (value, path) in map.takeList("policies", max: Bounds.policiesMax) ?? [] {
            let inner = MappingReader(value, path: path, diagnostics: map.diagnostics)
            let name = inner.readRequired("name", hint: "write one such as login") { text throws(Invalid) in
                try Self.name(text)
            }
            if let name {
                if let first = names[name] {
                    inner.report("\(quoted(name)) is the name of \(first) already; give it another", at: "name")
                }
                names[name] = names[name] ?? path
            }
            if let policy = Configuration.Policy(inner, name: name) { policies.append(policy) }
        }
        return policies
    }

    /// `nil` after an error, which is reported then.
    private init?(_ map: MappingReader, name: String?) {
        concurrent = map.has("concurrent")
        let limit: Int?
        let window: TimeSpan?
        if concurrent {
            limit = map.readRequired("concurrent", hint: "write how many requests may run at once, such as 10") {
                text throws(Invalid) in
                try integer(text, in: 1...Bounds.rateMax)
            }
            window = map.read("lease", default: Bounds.leaseDefault) { text throws(Invalid) in
                try duration(text, in: Bounds.leaseMin...Bounds.leaseMax)
            }
            for key in ["limit", "window", "cost", "precision", "localFirst"] where map.has(key) {
                map.report("is of a window, and concurrent counts what runs at once; make two policies of it", at: key)
            }
        } else {
            limit = map.readRequired("limit", hint: "write how many requests pass in a window, such as 100") {
                text throws(Invalid) in
                try integer(text, in: 1...Bounds.rateMax)
            }
            window = map.readRequired("window", hint: "write a duration such as 1m") { text throws(Invalid) in
                try duration(text, in: Bounds.windowMin...Bounds.windowMax)
            }
        }
        key = map.read("key", default: .ip) { text throws(Invalid) in try Configuration.PolicyKey(parsing: text) }
        let tierSection = map.table("tiers")
        tiers = Self.tiers(tierSection)
        let services = map.readList("services", default: [], max: Bounds.servicesMax) { text throws(Invalid) in text }
        let paths = map.readList("paths", default: [], max: Bounds.policyPathsMax, pathPrefix)
        scope = Configuration.PolicyScope(services: services, paths: paths)
        map.diagnostics.policies.append(
            PolicyMention(
                path: map.path, name: name, countsIdentities: key.isIdentity, tier: tiers.first?.tier,
                services: map.words("services")))
        mode = map.read("mode", default: .enforce, choice)
        precision = map.read("precision", default: .exact, choice)
        localFirst = map.read("localFirst", default: false, boolean)
        cost = Configuration.PolicyCost(map.section("cost"))
        if let limit, !concurrent, cost.most > limit {
            map.report("a request of \(cost.most) could never pass a limit of \(limit)", at: "cost")
        }
        for tier in tiers where !concurrent && cost.most > tier.limit {
            tierSection.report(
                "a request of \(cost.most) could never pass a limit of \(tier.limit); raise it, or lower the cost",
                at: tier.tier)
        }
        map.finish()
        guard let name, let limit, let window else { return nil }
        self.name = name
        self.limit = limit
        self.window = window
    }

    private static func tiers(_ map: MappingReader) -> [Configuration.TierLimit] {
        map.pairs(max: Bounds.tiersMax).compactMap { name, text, key in
            do throws(Invalid) {
                guard !name.isEmpty, name.utf8.count <= Bounds.nameBytesMax, name.utf8.allSatisfy(isNameByte) else {
                    throw Invalid("\(quoted(name)) is no tier's name; use letters, digits, `-`, `_` and `.`")
                }
                return Configuration.TierLimit(tier: name, limit: try integer(text, in: 1...Bounds.rateMax))
            } catch {
                map.report(error.message, at: name)
                return nil
            }
        }
    }

    private static func name(_ text: String) throws(Invalid) -> String {
        guard !text.isEmpty, text.utf8.count <= Bounds.nameBytesMax, text.utf8.allSatisfy(isNameByte) else {
            throw Invalid(
                "\(quoted(text)) is not a name; use 1 to \(Bounds.nameBytesMax) letters, digits, `-`, `_` and `.`")
        }
        if text == "default" { throw Invalid("`default` is the policy of requestsPerSecond; write another name") }
        return text
    }
}

extension Configuration.PolicyCost {
    fileprivate init(_ map: MappingReader) {
        base = map.read("default", default: 1, Self.slots)
        methods = Self.table(map, "methods", max: Bounds.methodsMax) { text throws(Invalid) in
            let method = try token(text, max: Bounds.nameBytesMax)
            // RFC 9110 §9.1.
            guard method == method.uppercased() else {
                throw Invalid("methods are case-sensitive; write \(method.uppercased())")
            }
            return method
        }
        paths = Self.table(map, "paths", max: Bounds.policyPathsMax, pathPrefix)
        map.finish()
    }

    private static func slots(_ text: String) throws(Invalid) -> Int { try integer(text, in: 0...Bounds.costMax) }

    private static func table(
        _ map: MappingReader, _ key: String, max: Int, _ name: (String) throws(Invalid) -> String
    ) -> [String: Int] {
        var table: [String: Int] = [:]
        let section = map.table(key)
        for (text, value, _) in section.pairs(max: max) {
            do throws(Invalid) {
                table[try name(text)] = try slots(value)
            } catch {
                section.report(error.message, at: text)
            }
        }
        return table
    }
}

/// What a policy of the file says that can be told only when all has been read, whether or not it has errors of its own.
struct PolicyMention {
    var path: String
    var name: String?
    var countsIdentities: Bool
    /// One of those that it names.
    var tier: String?
    /// The services that it covers, and where each stands.
    var services: [(name: String, path: String)]

    /// How errors call it.
    var subject: String { name.map { "policy \(quoted($0))" } ?? "this policy" }
}

extension Configuration.PolicyKey {
    var isIdentity: Bool {
        switch self {
        case .user, .org, .apiKey: true
        case .ip, .service, .global, .header: false
        }
    }

    /// Reads `ip`, `service`, `global` or `header:NAME`.
    package init(parsing text: String) throws(Invalid) {
        switch text {
        case "ip": self = .ip
        case "service": self = .service
        case "global": self = .global
        case "user": self = .user
        case "org": self = .org
        case "apiKey": self = .apiKey
        default:
            let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
            guard parts.count == 2, parts[0] == "header" else {
                throw Invalid(
                    notOneOf(text, ["ip", "user", "org", "apiKey", "service", "global", "header:NAME"]))
            }
            // Field names ignore case (RFC 9110 §5.1).
            self = .header(try token(String(parts[1]), max: Bounds.nameBytesMax).lowercased())
        }
    }
}

extension Configuration {
    /// What can be told of policies only when all services are known.
    func checkPolicies(_ map: MappingReader) {
        let names = services.map(\.name)
        for policy in map.diagnostics.policies {
            checkIdentities(policy, map.diagnostics)
            for service in policy.services where !names.contains(service.name) {
                let near = suggestion(for: service.name, among: names).map { " (did you mean \($0)?)" } ?? ""
                map.diagnostics.report(
                    "\(policy.subject) covers \(quoted(service.name)), which is no service\(near)", at: [service.path])
            }
        }
        guard let rateLimit, !rateLimit.policies.isEmpty else { return }
        let section = map.section("rateLimit")
        checkForwardedNames(rateLimit, section)
        for service in names {
            let covering = rateLimit.policies.count { policy in
                policy.scope.services.isEmpty || policy.scope.services.contains(service)
            }
            let count = covering + (rateLimit.requestsPerSecond == nil ? 0 : 1)
            if count > Bounds.policiesPerServiceMax {
                section.report(
                    "\(count) policies cover \(quoted(service)); at most \(Bounds.policiesPerServiceMax) can cover one",
                    at: "policies")
            }
        }
        let count = rateLimit.policies.reduce(rateLimit.requestsPerSecond == nil ? 0 : 1) { $0 + 1 + $1.tiers.count }
        if count > Bounds.limitsMax {
            section.report("\(count) limits, tiers included; at most \(Bounds.limitsMax)", at: "policies")
        }
    }

    /// Policies that count identities need somebody who verifies them.
    private func checkIdentities(_ policy: PolicyMention, _ diagnostics: Diagnostics) {
        guard auth == nil else { return }
        if policy.countsIdentities {
            diagnostics.report(
                "\(policy.subject) counts identities, and nobody is asked for one; add the section auth",
                at: ["\(policy.path).key"])
        } else if let tier = policy.tier {
            diagnostics.report(
                "\(policy.subject) has tiers, and nobody is asked who they are; add the section auth",
                at: ["\(policy.path).tiers.\(pathStep(tier))"])
        }
    }
}

extension Configuration {
    /// A header that tells backends who calls is dropped where it comes from outside: what a policy would count by it is
    /// what a client has made up, and never what backends are told.
    private func checkForwardedNames(_ rateLimit: RateLimit, _ section: MappingReader) {
        guard let forward = auth?.forward else { return }
        let told: [(what: String, name: String?, remedy: String)] = [
            ("user", forward.user, "key: user"), ("org", forward.org, "key: org"),
            ("tier", forward.tier, "tiers, with key: user"), ("key", forward.key, "key: apiKey"),
        ]
        for policy in rateLimit.policies {
            guard case .header(let header) = policy.key else { continue }
            for (what, name, remedy) in told {
                guard let name, folded(name) == folded(header) else { continue }
                section.report(
                    "policy \(quoted(policy.name)) counts what clients write into \(quoted(header)), which auth.forward.\(what)"
                        + " says anew to backends; to count who is verified, write \(remedy)", at: "policies")
            }
        }
    }

    /// As names are compared that backends are told: CGI and its heirs cannot tell `X_Org` from `X-Org`.
    private func folded(_ name: String) -> [UInt8] {
        name.lowercased().utf8.map { (0x30...0x39).contains($0) || (0x61...0x7a).contains($0) ? $0 : 0x2d }
    }

    /// A policy's window that was given to a command.
    package static func window(_ text: String) throws(Invalid) -> TimeSpan {
        try duration(text, in: Bounds.windowMin...Bounds.windowMax)
    }
}
