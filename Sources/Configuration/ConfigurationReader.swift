// The schema: which keys there are, what they mean, what they contradict.

import Primitives

struct ConfigurationReader {
    let list: ProblemList

    func read(_ tree: Value, name: String) -> Configuration {
        var configuration = Configuration()
        let top = SectionReader(tree, path: "", list: list, fallback: .file(name: name, line: 1, column: 1))
        configuration.gateway = readGateway(top.section("gateway"))
        configuration.services = readServices(top, configuration.gateway)
        if let value = top.value("rateLimit") {
            configuration.rateLimit = readRateLimit(
                SectionReader(value, path: "rateLimit", list: list, fallback: top.origin))
        }
        top.finish()
        configuration.warnings = list.warnings
        return configuration
    }

    // MARK: Gateway

    private func readGateway(_ section: SectionReader) -> Configuration.Gateway {
        var gateway = Configuration.Gateway()
        if let address = listenAddress(section, "port") { gateway.port = address }
        section.duration("timeout", &gateway.timeout, from: .milliseconds(1), bareSeconds: true)
        gateway.admin = listenAddress(section, "admin")
        if let (text, origin) = section.text("workers"), text != "auto" {
            if let count = SectionReader.integer(text), (1...256).contains(count) {
                gateway.workers = count
            } else {
                list.report(origin, "gateway.workers must be auto or a whole number from 1 to 256, not \"\(text)\"")
            }
        }
        if let (text, _) = section.text("accessLog") {
            switch text.lowercased() {
            case "true", "yes", "on": gateway.accessLog = .standardOutput
            case "false", "no", "off": gateway.accessLog = .off
            default: gateway.accessLog = .file(text)
            }
        }
        section.choice("logFormat", &gateway.logFormat)
        section.choice("logLevel", &gateway.logLevel)
        readVia(section, &gateway)
        readTrustedProxies(section, &gateway)
        section.duration("heartbeat", &gateway.heartbeat, from: .milliseconds(50), to: .seconds(60))
        let drain = section.section("drain")
        drain.duration("delay", &gateway.drain.delay, from: .zero)
        drain.duration("timeout", &gateway.drain.timeout, from: .zero)
        drain.finish()
        gateway.limits = readLimits(section.section("limits"))
        section.finish()
        return gateway
    }

    private func readVia(_ section: SectionReader, _ gateway: inout Configuration.Gateway) {
        guard let (text, origin) = section.text("via") else { return }
        let allowed = text.utf8.allSatisfy { byte in
            byte >= 0x30 && byte <= 0x39 || byte | 0x20 >= 0x61 && byte | 0x20 <= 0x7a || byte == UInt8(ascii: "-")
                || byte == UInt8(ascii: ".") || byte == UInt8(ascii: "_")
        }
        if text.isEmpty || text.utf8.count > 64 || !allowed {
            list.report(origin, "gateway.via must be a name of 1 to 64 letters, digits, dots, dashes or underscores")
        } else {
            gateway.via = text
        }
    }

    private func readTrustedProxies(_ section: SectionReader, _ gateway: inout Configuration.Gateway) {
        for (text, origin) in section.words("trustedProxies") ?? [] {
            if let block = CIDR(text) {
                gateway.trustedProxies.append(block)
            } else {
                list.report(
                    origin,
                    "gateway.trustedProxies: \"\(text)\" is no address block: write 10.0.0.0/8 or 2001:db8::/32, with no bits set behind the prefix")
            }
        }
    }

    private func listenAddress(_ section: SectionReader, _ key: String) -> ListenAddress? {
        guard let (text, origin) = section.text(key) else { return nil }
        let remedy = "\(section.name(key)) must be an address and a port, such as \":8080\", \"127.0.0.1:8080\" or \"[::1]:8080\", not \"\(text)\""
        var host: IPAddress?
        var digits = Substring(text)
        if let colon = text.lastIndex(of: ":") {
            digits = text[text.index(after: colon)...]
            var name = text[..<colon]
            if name.hasPrefix("["), name.hasSuffix("]") { name = name.dropFirst().dropLast() }
            if !name.isEmpty {
                guard let address = name == "localhost" ? IPAddress.v4Loopback : IPAddress(name) else {
                    list.report(origin, remedy)
                    return nil
                }
                host = address
            }
        }
        guard digits.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let port = UInt16(digits) else {
            list.report(origin, remedy)
            return nil
        }
        return ListenAddress(host: host, port: port)
    }

    private func readLimits(_ section: SectionReader) -> Configuration.Limits {
        var limits = Configuration.Limits()
        section.size("requestLineBytes", &limits.requestLineBytes)
        section.size("headerBytes", &limits.headerBytes)
        section.integer("headerCount", &limits.headerCount, in: 0...10_000)
        section.size("bodyBytes", &limits.bodyBytes)
        section.duration("headerTimeout", &limits.headerTimeout, from: .zero)
        section.duration("bodyTimeout", &limits.bodyTimeout, from: .zero)
        section.duration("idleTimeout", &limits.idleTimeout, from: .zero)
        section.integer("requestsPerConnection", &limits.requestsPerConnection, in: 0...1_000_000_000)
        section.integer("connections", &limits.connections, in: 0...10_000_000)
        section.integer("connectionsPerClient", &limits.connectionsPerClient, in: 0...10_000_000)
        // Heads are held in memory until they are complete.
        for (key, value) in [("requestLineBytes", limits.requestLineBytes), ("headerBytes", limits.headerBytes)]
        where value.bytes > 1 << 20 {
            list.report(section.origin(of: key), "\(section.name(key)) must be at most 1MiB")
        }
        section.finish()
        return limits
    }

    // MARK: Services

    private func readServices(_ top: SectionReader, _ gateway: Configuration.Gateway) -> [Configuration.Service] {
        guard let value = top.value("services") else {
            list.report(top.origin, "services is missing: name at least one service with its path and instances")
            return []
        }
        guard case .sequence(let items) = value.content else {
            list.report(value.origin, "services must be a list, not \(value.kind)")
            return []
        }
        if items.isEmpty { list.report(value.origin, "services is empty: name at least one service") }
        var services: [Configuration.Service] = []
        var names: [String: Origin] = [:]
        var paths: [String: Origin] = [:]
        for (index, item) in items.enumerated() {
            let section = SectionReader(item, path: "services[\(index)]", list: list, fallback: value.origin)
            let service = ServiceReader(list: list, gateway: gateway).read(section)
            // A service without a name or a path has been reported as that.
            if !service.name.isEmpty, let first = names.updateValue(section.origin, forKey: service.name) {
                list.report(section.origin(of: "name"), "the service \"\(service.name)\" is named twice, first at \(first.place)")
            }
            if !service.path.isEmpty, let first = paths.updateValue(section.origin, forKey: service.path) {
                list.report(section.origin(of: "path"), "the path \"\(service.path)\" is given twice, first at \(first.place)")
            }
            services.append(service)
        }
        return services
    }

    // MARK: Rate limit

    private func readRateLimit(_ section: SectionReader) -> Configuration.RateLimit {
        var limit = Configuration.RateLimit(requestsPerSecond: 0, burstSize: 0)
        let most = 1_000_000_000_000
        if section.value("requestsPerSecond") == nil {
            list.report(section.origin, "rateLimit.requestsPerSecond is missing: say how many requests a client may send")
        }
        section.integer("requestsPerSecond", &limit.requestsPerSecond, in: 1...most)
        limit.burstSize = limit.requestsPerSecond
        section.integer("burstSize", &limit.burstSize, in: 1...most)
        if let (text, origin) = section.text("redisURL"), !text.isEmpty {
            do throws(RedisURL.Malformed) {
                limit.redisURL = try RedisURL(text)
            } catch {
                list.report(origin, "rateLimit.redisURL: \(error.message)")
            }
        }
        section.duration("timeout", &limit.timeout, from: .milliseconds(1), to: .seconds(10))
        section.choice("onRedisLoss", &limit.onRedisLoss)
        if let policies = section.value("policies") {
            switch policies.content {
            case .sequence(let items) where items.isEmpty: break
            case .scalar, .null, .mapping, .sequence:
                list.report(
                    policies.origin,
                    "rateLimit.policies is not supported yet: leave it out, and requestsPerSecond makes the policy \"default\"")
            }
        }
        section.finish()
        return limit
    }
}
