// Every setting that counts, with where it comes from: what the readers found as they read, not a second list of keys
// beside theirs.

/// One key, what it is set to, and by whom.
package struct Setting: Equatable, Sendable {
    package enum Origin: Equatable, Sendable, CustomStringConvertible {
        /// Nobody has set it.
        case standard
        case file(name: String, line: Int, column: Int)
        case override

        package var description: String {
            switch self {
            case .standard: "default"
            case .file(let name, let line, let column): "\(name):\(line):\(column)"
            case .override: "--set"
            }
        }
    }

    /// As `--set` takes it: `services.user-service.timeouts.connect`.
    package var key: String
    /// As the file would say it; secrets are masked.
    package var value: String
    package var origin: Origin
}

/// Takes down what readers find.
package final class SettingsLog {
    private var found: [Setting] = []
    /// Errors would name what they are about by its number.
    private var names: [String: String] = [:]

    /// What each reader says to texts that tell kinds of values apart, by path without numbers: `services[].path`.
    private(set) var readings: [String: [String: String?]] = [:]
    private let learns: Bool
    /// What the text or an override says, as it stands, in their order.
    private(set) var given: [(path: String, value: String, origin: Setting.Origin)] = []

    /// No value of ours, and one of each kind.
    static let probes = ["\u{1}", "true", "1", "-1", "305", "auto", "/x"]

    /// - Parameter learns: whether readers are asked what they take, too.
    package init(learns: Bool = false) { self.learns = learns }

    func learn<T>(_ path: String, _ parse: (String) throws(Invalid) -> T) {
        guard learns else { return }
        var reading: [String: String?] = [:]
        for probe in Self.probes {
            do throws(Invalid) {
                _ = try parse(probe)
                reading.updateValue(nil, forKey: probe)
            } catch {
                reading[probe] = error.message
            }
        }
        readings[path.replacing(/\[[0-9]+\]/, with: "[]")] = reading
    }

    func note(_ path: String, _ value: String, _ origin: Setting.Origin) {
        if path.hasSuffix("].name"), let end = path.lastIndex(of: "."), let open = path.lastIndex(of: "[") {
            names[String(path[..<end])] = "\(path[..<open]).\(value)"
        }
        if origin != .standard { given.append((path, value, origin)) }
        found.append(Setting(key: path, value: Secrets.masked(path, value), origin: origin))
    }

    var settings: [Setting] {
        found.map { setting in
            var setting = setting
            if let end = setting.key.firstIndex(of: "]"), let name = names[String(setting.key[...end])] {
                setting.key = name + setting.key[setting.key.index(after: end)...]
            }
            return setting
        }
    }
}

/// What nobody may read over an operator's shoulder, or in a ticket.
enum Secrets {
    static let mask = "***"
    private static let words = [
        "token", "secret", "password", "authorization", "cookie", "apikey", "api-key", "credential",
    ]

    static func masked(_ path: String, _ value: String) -> String {
        let last = path.split(separator: ".").last.map { $0.lowercased() } ?? ""
        if last == "redisurl" { return (try? RedisURL(parsing: value)).map { $0.description } ?? value }
        // Whatever a collector asks for is a key more often than not.
        if path.hasPrefix("tracing.otlp.headers.") { return mask }
        return words.contains { last.contains($0) } && value != none ? mask : value
    }

    static let none = "none"
}

extension ConfigurationSource {
    /// Every setting of a text that is right.
    package func settings(of text: String, file: String? = nil) throws(ConfigurationErrors) -> [Setting] {
        let log = SettingsLog()
        _ = try Configuration.parse(
            text, file: file ?? path, overrides: overrides, environment: environment, log: log)
        return log.settings
    }
}

/// What a node's own file says of itself, above a text of the cluster's.
struct OwnSetting {
    /// `KEY=VALUE`.
    var text: String
    var origin: Setting.Origin
}

extension ConfigurationSource {
    /// What a node says of itself when the rest comes from the cluster.
    private static let own = [
        "gateway.port", "gateway.admin", "gateway.adminToken", "gateway.workers", "gateway.accessLog",
        "gateway.watchConfig", "rateLimit.redisURL", "rateLimit.decisionLog", "config.from",
    ]

    /// The meaning of a text of the cluster's here: this node's own file stands above it in what is its own, the command
    /// line in everything.
    /// - Parameter examine: what else is wrong with it here.
    package func parse(
        _ text: String, named name: String, over own: String, log: SettingsLog? = nil,
        examine: (Configuration) -> [Finding] = { _ in [] }
    ) throws(ConfigurationErrors) -> Configuration {
        let ownLog = SettingsLog()
        _ = try Configuration.parse(own, file: path, overrides: overrides, environment: environment, log: ownLog)
        let mine = Self.own.compactMap { key in Self.override(key, ownLog.given) }
        return try Configuration.parse(
            text, file: name, own: mine, overrides: overrides, environment: environment, log: log, examine: examine)
    }

    /// Every setting of such a text.
    package func settings(
        of text: String, named name: String, over own: String
    ) throws(ConfigurationErrors) -> [Setting] {
        let log = SettingsLog()
        _ = try parse(text, named: name, over: own, log: log)
        return log.settings
    }

    /// What the file says of a key, as `--set` takes it: a value, or a mapping of values and lists.
    private static func override(
        _ key: String, _ given: [(path: String, value: String, origin: Setting.Origin)]
    ) -> OwnSetting? {
        if let whole = given.last(where: { $0.path == key }) {
            return OwnSetting(text: "\(key)=\(scalar(whole.value))", origin: whole.origin)
        }
        var members: [(name: String, values: [String], isList: Bool)] = []
        var first: Setting.Origin?
        for (path, value, origin) in given where path.hasPrefix("\(key).") {
            let rest = path.dropFirst(key.count + 1)
            let name = String(rest.prefix { $0 != "[" })
            if members.last?.name != name { members.append((name, [], rest.hasSuffix("]"))) }
            members[members.count - 1].values.append(scalar(value))
            first = first ?? origin
        }
        guard let first else { return nil }
        let parts = members.map { member in
            let all = member.values.joined(separator: ", ")
            return "\(member.name): \(member.isList ? "[\(all)]" : all)"
        }
        return OwnSetting(text: "\(key)={\(parts.joined(separator: ", "))}", origin: first)
    }

    /// As a text in quotes: nothing in it means anything to YAML, or is a variable again.
    private static func scalar(_ text: String) -> String {
        "'\(text.replacing("'", with: "''").replacing("$", with: "$$"))'"
    }
}

/// A default as the file would say it: in the words that its own reader takes.
func shown<T>(_ standard: T, _ parse: (String) throws(Invalid) -> T) -> String {
    let text = plain(standard)
    if (try? parse(text)) != nil { return text }
    if (try? parse("\(text)%")) != nil { return "\(text)%" }
    if text == Secrets.none, let zero = try? parse("0"), plain(zero) == Secrets.none { return "0" }
    return text
}

private func plain(_ value: Any) -> String {
    let mirror = Mirror(reflecting: value)
    if mirror.displayStyle == .optional { return mirror.children.first.map { plain($0.value) } ?? Secrets.none }
    if let word = value as? any RawRepresentable<String> { return word.rawValue }
    if let target = value as? Configuration.AccessLog, target == .standardOutput { return "true" }
    return "\(value)"
}
