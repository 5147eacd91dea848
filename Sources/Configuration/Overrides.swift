// `--set KEY=VALUE`: writes into the document's tree before anything is read from it, so an override passes the same
// checks as the file and wins over it.

/// One override, taken apart.
struct Override {
    /// As the operator wrote it, for errors.
    let key: String
    /// The path as errors name it (`services[0].strategy`), once it is known which element a name meant.
    var path: String
    let steps: [String]
    let value: String
    /// Whose word it is.
    let origin: Setting.Origin

    /// Reads `KEY=VALUE`; a key is names joined by dots, elements in brackets or as names: `services[0].strategy`,
    /// `services.0.strategy`, `services.orders.strategy`, `services[a.b].strategy`.
    init(_ text: String, by origin: Setting.Origin = .override) throws(Invalid) {
        self.origin = origin
        guard let equals = text.firstIndex(of: "=") else {
            throw Invalid("no `=`; write --set KEY=VALUE, such as --set gateway.port=127.0.0.1:8080")
        }
        key = String(text[..<equals])
        path = key
        value = String(text[text.index(after: equals)...])
        guard let steps = Self.steps(of: key) else {
            throw Invalid("no key of this form; write names joined by dots, such as services[0].strategy")
        }
        self.steps = steps
    }

    private static func steps(of key: String) -> [String]? {
        if key.utf8.count > Bounds.pathBytesMax { return nil }
        var steps: [String] = []
        var rest = Substring(key)
        while true {
            let bracketed = rest.first == "[" && !steps.isEmpty
            let step: Substring
            if bracketed {
                guard let end = rest.firstIndex(of: "]") else { return nil }
                step = rest[..<end].dropFirst()
                rest = rest[end...].dropFirst()
            } else {
                step = rest.prefix { $0 != "." && $0 != "[" }
                rest = rest[step.endIndex...]
            }
            if step.isEmpty || steps.count == Bounds.depthMax { return nil }
            steps.append(String(step))
            guard let next = rest.first else { return steps }
            if next == "." {
                rest = rest.dropFirst()
                if rest.first == "[" { return nil }
            } else if next != "[" {
                return nil
            }
        }
    }

    /// Where an error about it belongs.
    var place: ConfigurationError.Place {
        if case .file(let name, let line, let column) = origin {
            return .position(file: name, line: line, column: column)
        }
        return .override(key: key)
    }

    /// Writes the value into the tree. `path` becomes the path that it wrote to.
    mutating func apply(to root: inout Value, index: Int) throws(Invalid) {
        let new: Value
        do throws(Document.Failure) {
            new = try Document.parseOverride(value, index: index)
        } catch {
            throw Invalid(error.message)
        }
        path = try Self.write(new, into: &root, steps[...], path: "")
    }

    private static func write(
        _ new: Value, into target: inout Value, _ steps: ArraySlice<String>, path: String
    ) throws(Invalid) -> String {
        guard let step = steps.first else {
            target = new
            return path
        }
        switch target.content {
        case .mapping(var entries):
            let inner = path.isEmpty ? step : "\(path).\(step)"
            let at = entries.firstIndex { $0.key == step } ?? entries.count
            if at == entries.count {
                entries.append(
                    Entry(key: step, origin: new.origin, value: Value(content: .null, origin: new.origin)))
            }
            let written = try write(new, into: &entries[at].value, steps.dropFirst(), path: inner)
            target.content = .mapping(entries)
            return written
        case .sequence where path.isEmpty: return steps.joined(separator: ".")
        case .sequence(let elements) where elements.isEmpty && step == "0":
            target = Value(content: .null, origin: new.origin)
            return try write(new, into: &target, steps, path: path)
        case .sequence(var elements):
            let at = try Self.index(of: step, in: elements, path: path)
            let written = try write(new, into: &elements[at], steps.dropFirst(), path: "\(path)[\(at)]")
            target.content = .sequence(elements)
            return written
        // Whoever reads a file that is no mapping says so.
        case .scalar where path.isEmpty: return steps.joined(separator: ".")
        case .null, .invalid:
            target = Value(content: .mapping([]), origin: new.origin)
            return try write(new, into: &target, steps, path: path)
        case .scalar:
            throw Invalid("\(path) is a single value and has no \(quoted(step)); set \(path) as a whole")
        }
    }

    /// The element that a step means: an index from 0, or the `name` of a mapping.
    private static func index(of step: String, in elements: [Value], path: String) throws(Invalid) -> Int {
        if let index = try? integer(step, in: 0...Bounds.countMax) {
            if index < elements.count { return index }
            throw Invalid("\(path) has \(elements.count) elements, counted from 0; there is no \(index)")
        }
        var names: [String] = []
        for (index, element) in elements.enumerated() {
            guard case .mapping(let entries) = element.content,
                case .scalar(let name)? = entries.first(where: { $0.key == "name" })?.value.content
            else { continue }
            if name == step { return index }
            names.append(name)
        }
        let remedy = suggestion(for: step, among: names).map { " (did you mean \(path).\($0)?)" } ?? ""
        throw Invalid("\(path) has no element \(quoted(step))\(remedy)")
    }
}
