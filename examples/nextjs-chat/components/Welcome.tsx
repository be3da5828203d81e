const QUESTIONS = [
  ["Explain", "hash maps to a beginner"],
  ["Write", "a Python script for duplicate files"],
  ["Compare", "TCP and UDP in a table"],
  ["Plan", "a weekend in Lisbon"],
] as const;

/** Shown in an empty conversation, with example questions. */
export function Welcome({ onAsk }: { onAsk: (text: string) => void }) {
  return (
    <section className="welcome">
      <h2>What can I do for you?</h2>
      <ul>
        {QUESTIONS.map(([verb, rest]) => (
          <li key={verb}>
            <button type="button" onClick={() => onAsk(`${verb} ${rest}`)}>
              <strong>{verb}</strong> <span>{rest}</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  );
}
