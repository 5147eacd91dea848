// Reads one mapping key by key. The keys that are asked for are the schema: what was never asked for is unknown, and
// the nearest key that was asked for is the suggestion. An error is noted and the default goes on in its place, so that
// one pass finds them all.

final class MappingReader {
    let diagnostics: Diagnostics
    let origin: Origin
    /// The path of this mapping, `services[0].health`; empty for the whole document.
    let path: String
    private let entries: [Entry]
    private var asked: [String] = []
    /// Whether an error about the mapping as a whole is reported already, so that nothing in it is missing.
    private let isInvalid: Bool

    init(_ value: Value, path: String, diagnostics: Diagnostics) {
        self.diagnostics = diagnostics
        self.path = path
        origin = value.origin
        switch value.content {
        case .mapping(let entries):
            self.entries = entries
            isInvalid = false
        case .null:
            entries = []
            isInvalid = false
        case .invalid:
            entries = []
            isInvalid = true
        case .scalar, .sequence:
            entries = []
            isInvalid = true
            let what = path.isEmpty ? "the file" : "it"
            diagnostics.report(
                "\(what) must be a mapping of keys to values, not \(value.kind)", at: value.origin, key: pathOrNil)
        }
    }

    private var pathOrNil: String? { path.isEmpty ? nil : path }

    func path(of key: String) -> String { path.isEmpty ? key : "\(path).\(key)" }

    /// The value of a key; `nil` when it is absent or empty.
    func take(_ key: String) -> Value? {
        if !asked.contains(key) { asked.append(key) }
        guard let entry = entries.first(where: { $0.key == key }) else { return nil }
        if case .null = entry.value.content { return nil }
        return entry.value
    }

    /// Whether the key is there and not empty.
    func has(_ key: String) -> Bool {
        if !asked.contains(key) { asked.append(key) }
        return entries.contains {
            if case .null = $0.value.content { return false }
            return $0.key == key
        }
    }

    func report(_ message: String, at key: String) {
        let origin = entries.first { $0.key == key }?.value.origin ?? origin
        diagnostics.report(message, at: origin, key: path(of: key))
    }

    /// Says nothing where the mapping itself is wrong.
    func reportMissing(_ key: String, hint: String) {
        if !isInvalid { report("missing; \(hint)", at: key) }
    }

    /// One value, or the default where the key is absent or wrong.
    func read<T>(_ key: String, default standard: T, _ parse: (String) throws(Invalid) -> T) -> T {
        guard let value = take(key) else {
            if let log = diagnostics.log {
                log.note(path(of: key), shown(standard, parse), .standard)
                log.learn(path(of: key), parse)
            }
            return standard
        }
        return scalar(value, path: path(of: key), parse) ?? standard
    }

    /// One value that must be there; `nil` after an error.
    func readRequired<T>(_ key: String, hint: String, _ parse: (String) throws(Invalid) -> T) -> T? {
        guard let value = take(key) else {
            reportMissing(key, hint: hint)
            return nil
        }
        return scalar(value, path: path(of: key), parse)
    }

    /// A list, or the default where the key is absent; elements that are wrong are left out.
    func readList<T>(_ key: String, default standard: [T], max: Int, _ parse: (String) throws(Invalid) -> T) -> [T] {
        guard let elements = takeList(key, max: max) else {
            if let log = diagnostics.log, !has(key) {
                let texts = standard.map { shown($0, parse) }
                log.note(path(of: key), "[\(texts.joined(separator: ", "))]", .standard)
                log.learn("\(path(of: key))[0]", parse)
            }
            return standard
        }
        return elements.compactMap { scalar($0.value, path: $0.path, parse) }
    }

    /// The elements of a list with their paths; `nil` when it is absent or no list.
    func takeList(_ key: String, max: Int) -> [(value: Value, path: String)]? {
        guard let value = take(key) else { return nil }
        let path = path(of: key)
        if let elements = value.elements {
            if elements.count > max {
                diagnostics.report("\(elements.count) elements; at most \(max)", at: value.origin, key: path)
                return nil
            }
            return elements.enumerated().map { ($0.element, "\(path)[\($0.offset)]") }
        }
        switch value.content {
        case .sequence, .scalar, .mapping, .null:
            diagnostics.report("must be a list, not \(value.kind); write [a, b]", at: value.origin, key: path)
            return nil
        case .invalid:
            return nil
        }
    }

    /// The words of a list that has been read, and where each stands.
    func words(_ key: String) -> [(name: String, path: String)] {
        (take(key)?.elements ?? []).enumerated().compactMap { index, element in
            guard case .scalar(let text) = element.content else { return nil }
            return (text, "\(path(of: key))[\(index)]")
        }
    }

    /// A section that does nothing where it is absent.
    func optionalSection(_ key: String) -> MappingReader? {
        noteIfAbsent(key, as: Secrets.none)
        return has(key) ? section(key) : nil
    }

    /// A mapping whose keys are free.
    func table(_ key: String) -> MappingReader {
        noteIfAbsent(key, as: "{}")
        return section(key)
    }

    /// For what no other reading notes.
    func noteIfAbsent(_ key: String, as standard: String) {
        if let log = diagnostics.log, !has(key) { log.note(path(of: key), standard, .standard) }
    }

    func section(_ key: String) -> MappingReader {
        let value = take(key) ?? Value(content: .null, origin: origin)
        return MappingReader(value, path: path(of: key), diagnostics: diagnostics)
    }

    /// All entries of a mapping whose keys are free, with texts as values, and the key that names each in an error of
    /// the mapping above.
    func pairs(max: Int) -> [(name: String, value: String, key: String)] {
        if entries.count > max {
            diagnostics.report("\(entries.count) entries; at most \(max)", at: origin, key: path)
            return []
        }
        asked += entries.map(\.key)
        let last = String(path[(path.lastIndex(of: ".").map { path.index(after: $0) } ?? path.startIndex)...])
        return entries.compactMap { entry in
            scalar(entry.value, path: path(of: pathStep(entry.key))) { text throws(Invalid) in text }
                .map { (entry.key, $0, last) }
        }
    }

    func scalar<T>(_ value: Value, path: String, _ parse: (String) throws(Invalid) -> T) -> T? {
        switch value.content {
        case .scalar(let text):
            diagnostics.note(path, text, at: value.origin)
            diagnostics.log?.learn(path, parse)
            do throws(Invalid) {
                return try parse(text)
            } catch {
                diagnostics.report(error.message, at: value.origin, key: path)
                return nil
            }
        case .mapping, .sequence, .null:
            diagnostics.report("must be a single value, not \(value.kind)", at: value.origin, key: path)
            return nil
        case .invalid:
            return nil
        }
    }

    /// Reports every key that nobody asked for.
    func finish() {
        var meant: Set<String> = []
        for entry in entries where !asked.contains(entry.key) {
            let path = path(of: pathStep(entry.key))
            let remedy: String
            if entry.key == "<<" {
                remedy = "merge keys are not supported; write the keys out"
            } else if let near = suggestion(for: entry.key, among: asked) {
                remedy = "unknown key (did you mean \(self.path(of: near))?)"
                if entry.value.isSection, meant.insert(near).inserted, !entries.contains(where: { $0.key == near }) {
                    diagnostics.reportMisspelt(remedy, at: entry.origin, key: path, meant: near)
                    continue
                }
            } else {
                remedy = "unknown key; known here: \(asked.joined(separator: ", "))"
            }
            diagnostics.report(remedy, at: entry.origin, key: path)
        }
    }
}
