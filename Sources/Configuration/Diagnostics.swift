/// Collects errors on the way.
final class Diagnostics {
    private let file: String
    /// What each `--set` said, and the path that it set, for errors about it.
    private let overrides: [Override]
    /// Who wants to know what is read, and from where.
    let log: SettingsLog?
    /// Where each value stands that was read.
    private var origins: [String: Origin] = [:]
    /// What policies say of others.
    var policies: [PolicyMention] = []
    private var found: [(rank: (Int, Int, Int), error: ConfigurationError)] = []
    /// Errors that stay whatever a further reading finds.
    private var lasting = 0
    /// Sections under a wrong name, by its place, and the name that was meant.
    private(set) var misspelt: [Origin: String] = [:]

    init(file: String, overrides: [Override], log: SettingsLog? = nil) {
        self.file = file
        self.overrides = overrides
        self.log = log
    }

    /// What is found from now on is found again by another reading.
    func beginReading() { lasting = found.count }

    /// A section whose name nobody knows.
    func reportMisspelt(_ message: String, at origin: Origin, key: String, meant: String) {
        report(message, at: origin, key: key)
        guard case .file = origin, misspelt[origin] == nil, let error = found.popLast() else { return }
        misspelt[origin] = meant
        found.insert(error, at: lasting)
        lasting += 1
    }

    /// For the reading of what the misspelt sections hold; `nil` where there are none.
    func forMisspelt() -> Diagnostics? {
        if misspelt.isEmpty { return nil }
        let next = Diagnostics(file: file, overrides: overrides, log: log)
        next.found = Array(found.prefix(lasting))
        next.lasting = lasting
        return next
    }

    func note(_ path: String, _ text: String, at origin: Origin) {
        origins[path] = origin
        guard let log else { return }
        switch origin {
        case .file(let line, let column): log.note(path, text, .file(name: file, line: line, column: column))
        case .override(let index): log.note(path, text, overrides[index].origin)
        }
    }

    func report(_ finding: Finding) {
        // What may be said in one word may also be a mapping.
        let origin = origins[finding.key] ?? origins["\(finding.key).path"] ?? .file(line: 1, column: 1)
        report(finding.message, at: origin, key: finding.key)
    }

    /// - Parameter keys: of which the first one that was read is meant.
    func report(_ message: String, at keys: [String]) {
        guard let key = keys.first(where: { origins[$0] != nil }) ?? keys.last else { return }
        report(message, at: origins[key] ?? .file(line: 1, column: 1), key: key)
    }

    func report(_ message: String, at origin: Origin, key: String? = nil) {
        switch origin {
        case .file(let line, let column):
            let place = ConfigurationError.Place.position(file: file, line: line, column: column)
            found.append(((0, line, column), ConfigurationError(place: place, key: key, message: message)))
        case .override(let index):
            let override = overrides[index]
            // The override's own key stands in front of the message already.
            let shown = override.origin == .override && (key == override.path || key == override.key) ? nil : key
            found.append(((1, index, 0), ConfigurationError(place: override.place, key: shown, message: message)))
        }
    }

    /// All errors, by place.
    var errors: [ConfigurationError] {
        // `sorted` keeps the order of equals.
        found.sorted { $0.rank < $1.rank }.map(\.error)
    }
}

/// Something that is wrong with a value beside what it says: the file that it names is not there.
package struct Finding {
    /// Such as `auth.jwt[0].keyFile`.
    package var key: String
    package var message: String

    package init(_ key: String, _ message: String) {
        self.key = key
        self.message = message
    }
}

/// A key as a step of a path in an error: itself, or quoted where it holds more than names do.
func pathStep(_ key: String) -> String {
    let isName = !key.isEmpty && key.utf8.count <= Bounds.misspeltScalarsMax && key.utf8.allSatisfy(isNameByte)
    return isName ? key : quoted(key)
}
