// A YAML document as a tree in which every value knows where it was written. Variables are filled in here, after
// parsing, so that their contents can never become structure.

import Yams

/// Where a value comes from.
enum Origin: Sendable {
    case file(name: String, line: Int, column: Int)
    /// A `--set KEY=VALUE`.
    case override(String)

    var place: String {
        switch self {
        case .file(let name, let line, let column): "\(name):\(line):\(column)"
        case .override(let text): "--set \(text)"
        }
    }
}

struct Value: Sendable {
    enum Content: Sendable {
        case scalar(String)
        case null
        case sequence([Value])
        case mapping([Entry])
    }

    struct Entry: Sendable {
        var key: String
        var keyOrigin: Origin
        var value: Value
    }

    var content: Content
    var origin: Origin

    /// What it is, for messages.
    var kind: String {
        switch content {
        case .scalar(let text): "\"\(text)\""
        case .null: "nothing"
        case .sequence: "a list"
        case .mapping: "a mapping"
        }
    }
}

/// Builds the tree from YAML text.
struct DocumentReader {
    let name: String
    let environment: [String: String]
    private(set) var problems: [ConfigurationProblem] = []
    private var values = 0

    /// More than any cluster's services; aliases that multiply each other would pass it soon.
    private static let valuesMax = 100_000
    private static let depthMax = 32

    init(name: String, environment: [String: String]) {
        self.name = name
        self.environment = environment
    }

    mutating func read(_ yaml: String, origin: Origin? = nil) -> Value? {
        do {
            guard let node = try Yams.compose(yaml: yaml, .basic) else {
                return Value(content: .null, origin: origin ?? .file(name: name, line: 1, column: 1))
            }
            return convert(node, depth: 0, origin: origin)
        } catch let error as YamlError {
            report(error, origin)
        } catch {
            problems.append(ConfigurationProblem(place: origin?.place ?? name, message: "cannot be read as YAML: \(error)"))
        }
        return nil
    }

    private mutating func report(_ error: YamlError, _ origin: Origin?) {
        func add(_ mark: Mark?, _ message: String) {
            var place = origin?.place ?? name
            if origin == nil, let mark { place = "\(name):\(mark.line):\(mark.column)" }
            problems.append(ConfigurationProblem(place: place, message: message))
        }
        switch error {
        case .scanner(_, let problem, let mark, _), .parser(_, let problem, let mark, _),
            .composer(_, let problem, let mark, _):
            add(mark, "is not valid YAML: \(problem)")
        case .duplicatedKeysInMapping(let duplicates, let context):
            for key in duplicates { add(context.mark, "the key \"\(key)\" is given twice: remove one") }
        case .reader, .writer, .emitter, .representer, .dataCouldNotBeDecoded, .no, .memory:
            add(nil, "is not valid YAML: \(error)")
        }
    }

    private mutating func convert(_ node: Node, depth: Int, origin: Origin?) -> Value? {
        let here = origin ?? .file(name: name, line: node.mark?.line ?? 1, column: node.mark?.column ?? 1)
        values += 1
        guard values <= Self.valuesMax, depth <= Self.depthMax else {
            if values <= Self.valuesMax || values == Self.valuesMax + 1 {
                problems.append(
                    ConfigurationProblem(
                        place: here.place,
                        message: "too large: at most \(Self.valuesMax) values, nested \(Self.depthMax) deep"))
            }
            values = Self.valuesMax + 1
            return nil
        }
        switch node {
        case .scalar(let scalar):
            if scalar.style == .plain, ["", "~", "null", "Null", "NULL"].contains(scalar.string) {
                return Value(content: .null, origin: here)
            }
            return Value(content: .scalar(substitute(scalar.string, here)), origin: here)
        case .sequence(let sequence):
            return Value(
                content: .sequence(sequence.compactMap { convert($0, depth: depth + 1, origin: origin) }), origin: here)
        case .mapping(let mapping):
            var entries: [Value.Entry] = []
            for (key, value) in mapping {
                let keyOrigin = origin ?? .file(name: name, line: key.mark?.line ?? 1, column: key.mark?.column ?? 1)
                guard let text = key.scalar?.string else {
                    problems.append(ConfigurationProblem(place: keyOrigin.place, message: "a key must be a word"))
                    continue
                }
                guard let converted = convert(value, depth: depth + 1, origin: origin) else { continue }
                entries.append(Value.Entry(key: text, keyOrigin: keyOrigin, value: converted))
            }
            return Value(content: .mapping(entries), origin: here)
        case .alias:
            problems.append(ConfigurationProblem(place: here.place, message: "aliases are not supported: write it out"))
            return nil
        }
    }

    /// Replaces `${VAR}` and `${VAR:-default}`; `$$` is a dollar sign.
    private mutating func substitute(_ text: String, _ origin: Origin) -> String {
        guard text.contains("$") else { return text }
        var result = ""
        var rest = Substring(text)
        while let dollar = rest.firstIndex(of: "$") {
            result += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            if rest.first == "$" {
                result += "$"
                rest = rest.dropFirst()
            } else if rest.first == "{" {
                guard let end = rest.firstIndex(of: "}") else {
                    problems.append(
                        ConfigurationProblem(
                            place: origin.place,
                            message: "\"${\" is not closed: write ${NAME}, or $$ for a dollar sign"))
                    return text
                }
                result += variable(String(rest[rest.index(after: rest.startIndex)..<end]), origin)
                rest = rest[rest.index(after: end)...]
            } else {
                result += "$"
            }
        }
        return result + rest
    }

    private mutating func variable(_ expression: String, _ origin: Origin) -> String {
        var name = expression
        var fallback: String?
        if let colon = expression.firstIndex(of: ":"), expression[colon...].hasPrefix(":-") {
            name = String(expression[..<colon])
            fallback = String(expression[colon...].dropFirst(2))
        }
        if let value = environment[name], !(value.isEmpty && fallback != nil) { return value }
        if let fallback { return fallback }
        problems.append(
            ConfigurationProblem(
                place: origin.place,
                message: "the environment variable \(name) is not set: set it, or write ${\(name):-default}"))
        return ""
    }
}
