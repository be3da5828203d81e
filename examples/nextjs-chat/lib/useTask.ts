import { useCallback, useState } from "react";
import { toSentence } from "./server";

interface Task {
  run: () => Promise<void>;
  failure: string; // said before the error's message
  problem: string | null; // null while it runs
}

/** Run one asynchronous task at a time. A failed one is kept, with its error message, until it is run again. */
export function useTask() {
  const [task, setTask] = useState<Task | null>(null);

  const perform = useCallback(async (failure: string, run: () => Promise<void>) => {
    setTask({ run, failure, problem: null });
    try {
      await run();
      setTask(null);
    } catch (error) {
      setTask({ run, failure, problem: `${failure} ${toSentence(error as Error)}` });
    }
  }, []);

  const again = useCallback(() => task && void perform(task.failure, task.run), [task, perform]);
  return { isRunning: task !== null && task.problem === null, problem: task?.problem ?? null, perform, again };
}
