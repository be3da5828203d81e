import { Icon } from "./Icon";

/** What went wrong, as a sentence, and the way on. */
export function Problem({ sentence, onAgain }: { sentence: string; onAgain: () => void }) {
  return (
    <div className="problem" role="alert">
      <p>{sentence}</p>
      <button type="button" onClick={onAgain}>
        <Icon name="again" /> Try again
      </button>
    </div>
  );
}
