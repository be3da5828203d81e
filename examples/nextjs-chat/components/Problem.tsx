import { Icon } from "./Icon";

/** An error message with a button to retry. */
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
