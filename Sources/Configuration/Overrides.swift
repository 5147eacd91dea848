// `--set KEY=VALUE`: values from the command line, put into the tree before it is read, so that the same rules judge
// them.

/// Puts an override into a tree.
struct Override {
    let text: String
    private let path: [Substring]
    private let yaml: Substring

    private struct Refused: Error { var message: String }

    /// `nil` where there is no `=` or no key.
    init?(_ text: String) {
        guard let equals = text.firstIndex(of: "="), equals != text.startIndex else { return nil }
        self.text = text
        yaml = text[text.index(after: equals)...]
        // `services[0].path` and `services.0.path` are the same.
        var path: [Substring] = []
        for part in text[..<equals].split(separator: ".", omittingEmptySubsequences: false) {
            path += part.split(separator: "[", omittingEmptySubsequences: false).map { $0.hasSuffix("]") ? $0.dropLast() : $0 }
        }
        guard path.allSatisfy({ !$0.isEmpty }) else { return nil }
        self.path = path
    }

    var origin: Origin { .override(text) }

    func apply(to tree: inout Value, environment: [String: String], list: ProblemList) {
        var reader = DocumentReader(name: "--set", environment: environment)
        // A value such as `redis://h:1` or `:8080` is one word, whatever YAML would make of its colons.
        let isStructure = yaml.first == "[" || yaml.first == "{" || yaml.first == "\"" || yaml.first == "'"
        let quoted = "'" + yaml.split(separator: "'", omittingEmptySubsequences: false).joined(separator: "''") + "'"
        let value = reader.read(isStructure ? String(yaml) : (yaml.isEmpty ? "" : quoted), origin: origin)
        list.problems += reader.problems
        guard let value else { return }
        do throws(Refused) {
            try put(value, into: &tree, path[...], walked: "")
        } catch {
            list.report(origin, error.message)
        }
    }

    private func put(_ new: Value, into tree: inout Value, _ path: ArraySlice<Substring>, walked: String) throws(Refused) {
        guard let key = path.first else {
            tree = new
            return
        }
        let here = walked.isEmpty ? String(key) : "\(walked).\(key)"
        switch tree.content {
        case .mapping(var entries):
            if let index = entries.firstIndex(where: { $0.key == key }) {
                try put(new, into: &entries[index].value, path.dropFirst(), walked: here)
            } else {
                entries.append(try entry(new, key, path, here))
            }
            tree.content = .mapping(entries)
        case .null: tree.content = .mapping([try entry(new, key, path, here)])
        case .sequence(var items):
            guard let index = position(of: key, in: items) else {
                throw Refused(message: "\(walked) has no element \"\(key)\": it has \(items.count), counted from 0")
            }
            try put(new, into: &items[index], path.dropFirst(), walked: here)
            tree.content = .sequence(items)
        case .scalar(let text):
            // An instance may be written as its URL alone; `weight` makes it a mapping.
            guard walked.contains("instances.") else {
                throw Refused(message: "\(walked) is one value and has no key \"\(key)\"")
            }
            let url = Value.Entry(key: "url", keyOrigin: tree.origin, value: Value(content: .scalar(text), origin: tree.origin))
            tree.content = .mapping([url])
            try put(new, into: &tree, path, walked: walked)
        }
    }

    private func entry(
        _ new: Value, _ key: Substring, _ path: ArraySlice<Substring>, _ here: String
    ) throws(Refused) -> Value.Entry {
        var value = Value(content: .null, origin: origin)
        try put(new, into: &value, path.dropFirst(), walked: here)
        return Value.Entry(key: String(key), keyOrigin: origin, value: value)
    }

    /// By number, or by the `name` of a service.
    private func position(of key: Substring, in items: [Value]) -> Int? {
        if let number = SectionReader.integer(String(key)) { return items.indices.contains(number) ? number : nil }
        return items.firstIndex { item in
            guard case .mapping(let entries) = item.content else { return false }
            return entries.contains { entry in
                guard entry.key == "name", case .scalar(let name) = entry.value.content else { return false }
                return name == key
            }
        }
    }
}
